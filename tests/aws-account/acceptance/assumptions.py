"""The assumptions of src/aws/assumptions.rs, each with its check.

No router takes part: addresses move between the interface of the near client and one that is attached to nothing.
"""

import dataclasses
import time

from .aws import AwsError

CONFIRMED, REFUTED, NOT_TOLD = 'confirmed', 'refuted', 'not told'

# As in src/aws/assumptions.rs and src/core/model/ec2.rs.
MAX_FILTER_VALUES = 200
CLOCK_TOLERANCE = 240
LEAST_LEFT = 5 * 60
# More calls than EC2's rate limit allows at once.
BURST = 150


@dataclasses.dataclass
class Verdict:
    name: str
    assumption: str
    verdict: str
    detail: str
    # Numbers of the raw answers that show it: from, to.
    answers: tuple


class Checks:
    """All checks, in the order of the table in src/aws/assumptions.rs."""

    def __init__(self, aws, stack, near, times, say):
        self.aws, self.stack, self.near, self.times, self.say = aws, stack, near, times, say
        network = stack['Network']
        self.low, self.second, self.high = f'{network}.0.65', f'{network}.0.66', f'{network}.0.110'
        self.primary, self.outside = f'{network}.0.80', f'{network}.1.65'
        self.spare = stack['SpareInterface']
        self.verdicts = []
        self.first_key = None

    def run(self):
        found = self.aws('ec2', 'describe-network-interfaces', '--filters',
                         f'Name=attachment.instance-id,Values={self.near.id}')['NetworkInterfaces']
        self.interface = found[0]['NetworkInterfaceId']
        # Takes minutes, while the others run.
        idle = self.near.start('idle', self.times.idle, seconds=self.times.idle + 30)
        self.first_key = self.near.run('key')
        for name, assumption, check in CHECKS:
            if check not in (Checks.idle_connection, Checks.key_renewal):
                self.judge(name, assumption, lambda check=check: check(self))
            elif check is Checks.idle_connection:
                waiting = name, assumption, lambda: self.idle_connection(idle)
        self.judge(*waiting)

    def finish(self):
        """What takes as long as the whole run."""
        if self.first_key is None:
            return
        for name, assumption, check in CHECKS:
            if check is Checks.key_renewal:
                self.judge(name, assumption, self.key_renewal)
        order = [name for name, _, _ in CHECKS]
        self.verdicts.sort(key=lambda verdict: order.index(verdict.name))

    def judge(self, name, assumption, check):
        first = self.aws.number + 1
        try:
            verdict, detail = check()
        except AwsError as error:
            verdict, detail = NOT_TOLD, f'the check failed: {error}'
        except (LookupError, TypeError, ValueError) as error:
            # An answer of an unexpected form. The other checks, and the failovers, do not depend on this one.
            verdict, detail = NOT_TOLD, f'the check failed: {error!r}'
        self.verdicts.append(Verdict(name, assumption, verdict, detail, (first, self.aws.number)))
        self.say(f'{verdict:9}  {assumption}')

    # Helpers

    def claim(self, interface, *addresses):
        answer = self.aws('ec2', 'assign-private-ip-addresses', '--network-interface-id', interface,
                          '--private-ip-addresses', *addresses, '--allow-reassignment')
        return {each['PrivateIpAddress'] for each in answer.get('AssignedPrivateIpAddresses', [])}

    def missing(self, interface, *addresses, within):
        """Those of the addresses that EC2 does not show on the interface within the time."""
        deadline = time.monotonic() + within
        while True:
            found = self.aws('ec2', 'describe-network-interfaces', '--network-interface-ids', interface)['NetworkInterfaces'][0]
            missing = set(addresses) - {each['PrivateIpAddress'] for each in found['PrivateIpAddresses']}
            if not missing or time.monotonic() > deadline:
                return sorted(missing)
            self.aws.interrupts.sleep(self.times.poll)

    def take_off(self):
        """Takes the addresses off both interfaces, so that no check depends on the one before it."""
        ours = {self.low, self.second, self.high}
        found = self.aws('ec2', 'describe-network-interfaces', '--network-interface-ids', self.interface, self.spare)
        for interface in found['NetworkInterfaces']:
            held = sorted(ours & {each['PrivateIpAddress'] for each in interface['PrivateIpAddresses']})
            if held:
                self.aws('ec2', 'unassign-private-ip-addresses', '--network-interface-id', interface['NetworkInterfaceId'],
                         '--private-ip-addresses', *held)

    # Checks: each returns a verdict and what shows it.

    def filter_values(self):
        def read(count):
            values = ','.join(f'{self.stack["Network"]}.{number >> 8}.{number & 255}' for number in range(count - 1))
            self.aws('ec2', 'describe-network-interfaces', '--filters', f'Name=subnet-id,Values={self.stack["SubnetA"]}',
                     f'Name=addresses.private-ip-address,Values={values}')

        try:
            read(MAX_FILTER_VALUES)
        except AwsError as error:
            return refuted_by(error, f'{MAX_FILTER_VALUES} values: {error.code}')
        try:
            read(MAX_FILTER_VALUES + 1)
            return CONFIRMED, f'{MAX_FILTER_VALUES + 1} values are accepted as well'
        except AwsError as error:
            return CONFIRMED, f'{MAX_FILTER_VALUES} values are accepted; {MAX_FILTER_VALUES + 1}: {error.code or error.message}'

    def repeated_claim(self):
        self.claim(self.interface, self.low)
        left = self.missing(self.interface, self.low, within=self.times.settle)
        if left:
            return NOT_TOLD, f'the first claim of {self.low} was not performed'
        try:
            listed = self.claim(self.interface, self.low)
        except AwsError as error:
            return refuted_by(error, f'the second claim: {error.code}: {error.message}')
        return CONFIRMED, f'the second claim succeeded, and its answer {"lists" if listed else "does not list"} the address'

    def acknowledged_claim(self):
        self.take_off()
        unlisted = set()
        for interface in (self.interface, self.spare, self.interface, self.spare):
            addresses = (self.low, self.second) if interface == self.interface else (self.second, self.low)
            unlisted |= set(addresses) - self.claim(interface, *addresses)
            left = self.missing(interface, *addresses, within=self.times.settle)
            if left:
                shown = 'was not listed' if set(left) <= unlisted else 'was listed'
                return REFUTED, f'{", ".join(left)} {shown}, and not on {interface} after {self.times.settle} s'
        seen = f'answers did not list {", ".join(sorted(unlisted))}' if unlisted else 'every answer listed both addresses'
        return CONFIRMED, f'four claims of two addresses were performed; {seen}'

    def batch(self):
        self.take_off()
        seen = []
        for bad, what in ((self.primary, 'the primary address of another interface'), (self.outside, 'outside the subnet')):
            try:
                self.claim(self.spare, self.high, bad)
                return NOT_TOLD, f'a batch with {bad}, {what}, was accepted'
            except AwsError as error:
                if not error.is_verdict():
                    raise
                seen.append(f'{what}: {error.code}')
            if not self.missing(self.spare, self.high, within=self.times.batch):
                return REFUTED, f'{self.high} moved in a batch that was refused because of {bad}, {what}'
        return CONFIRMED, f'the other address did not move within {self.times.batch} s ({"; ".join(seen)})'

    def route(self, action, table, destination, *more):
        return (f'Action={action}', f'RouteTableId={table}', f'DestinationCidrBlock={destination}',
                f'NetworkInterfaceId={self.spare}', *more)

    def denied_dry_run(self):
        seen = []
        for table, what in ((self.stack['RoutesB'], 'route'), ('rtb-00000000000000000', 'route table')):
            # The clients' role may not do this, and it could not be done.
            code, = self.near.run('call', 1, '', *self.route('ReplaceRoute', table, '192.0.2.0/24', 'DryRun=true'))['codes']
            seen.append((code, f'ReplaceRoute without permission, of a {what} that does not exist: {code}'))
        answered = '; '.join(text for _, text in seen)
        if all(code == 'UnauthorizedOperation' for code, _ in seen):
            return CONFIRMED, answered
        return (REFUTED if any(code.startswith('Invalid') for code, _ in seen) else NOT_TOLD), answered

    def denied_claim(self):
        # Whatever EC2 answers, nothing moves: the interface has the address already, as its primary one.
        code, = self.near.run('call', 1, '', 'Action=AssignPrivateIpAddresses', f'NetworkInterfaceId={self.interface}',
                              f'PrivateIpAddress.1={self.primary}')['codes']
        answered = f'AssignPrivateIpAddresses without permission, of a primary address: {code}'
        if code == 'UnauthorizedOperation':
            return CONFIRMED, answered
        return (REFUTED if code.startswith('Invalid') else NOT_TOLD), answered

    def dry_run_rate(self):
        limit, route = 'RequestLimitExceeded', self.route('CreateRoute', self.stack['RoutesB'], '0.0.0.0/0')

        def send(*more):
            found = self.near.run('call', BURST, limit, *route, *more)
            return limit in found['codes'], f'{sum(found["codes"].values())} calls in {found["seconds"]} s'

        limited, dry = send('DryRun=true')
        if limited:
            return CONFIRMED, f'the last of {dry} with DryRun: {limit}'
        # The route exists, so that these change nothing either.
        limited, real = send()
        if limited:
            return REFUTED, f'{dry} with DryRun: none was limited; the last of {real} without it: {limit}'
        return NOT_TOLD, f'{dry} with DryRun and {real} without it: none was limited'

    def primary_first(self):
        self.take_off()
        # One address that sorts before the primary, and one after it.
        self.claim(self.interface, self.low)
        self.claim(self.interface, self.high)
        deadline = time.monotonic() + self.times.imds
        while True:
            shown = self.near.run('addresses')
            if {self.low, self.high} <= set(shown):
                break
            if time.monotonic() > deadline:
                return NOT_TOLD, f'IMDS showed {", ".join(shown)} after {self.times.imds} s, and not all of the addresses'
            self.aws.interrupts.sleep(self.times.poll)
        return (CONFIRMED if shown[0] == self.primary else REFUTED), f'local-ipv4s: {", ".join(shown)}; primary: {self.primary}'

    def clock(self):
        near, far = CLOCK_TOLERANCE - 10, CLOCK_TOLERANCE + 120
        found = {each['offset']: each for each in self.near.run('clock', 0, near, -near, far, -far)}
        if found[0]['status'] != 200:
            return NOT_TOLD, f'a request with the right time: {found[0]["code"]}'
        codes = [f'{offset:+} s: {each["code"] or "accepted"}' for offset, each in found.items() if offset]
        if any(found[offset]['status'] >= 500 for offset in (near, -near)):
            return NOT_TOLD, ', '.join(codes)
        accepted = all(found[offset]['status'] == 200 for offset in (near, -near))
        return (CONFIRMED if accepted else REFUTED), ', '.join(codes)

    def idle_connection(self, command):
        found = command.result(within=self.times.idle + 120)
        if found['first']['status'] != 200:
            return NOT_TOLD, f'the first request: {found["first"]["code"]}'
        second, idle = found['second'], f'after {found["idle-seconds"]:g} s'
        # Whatever EC2 answers: it came on this connection.
        if 'status' in second and second['same-connection']:
            return CONFIRMED, f'the connection was used again {idle}'
        return REFUTED, f'{idle}: {second.get("error", "another connection was used")}'

    def key_renewal(self):
        first, last = self.first_key, self.near.run('key')
        minutes = f'{(last["now"] - first["now"]) / 60:.0f} minutes'
        if last['key'] != first['key']:
            # When it was renewed is not known, only that it was before this moment.
            left = first['left'] - (last['now'] - first['now'])
            if left >= LEAST_LEFT:
                return CONFIRMED, f'within {minutes} IMDS had a new key, {left / 60:.0f} minutes before the old one expires'
            return NOT_TOLD, f'IMDS had a new key when {left:.0f} s of the old one were left, and perhaps before'
        if last['left'] < LEAST_LEFT:
            return REFUTED, f'IMDS has no new key {last["left"]:.0f} s before {last["expires"]}'
        return NOT_TOLD, f'no key was renewed within {minutes}; this one expires at {last["expires"]}'


def refuted_by(error, detail):
    """The verdict for an error: one that is about the sender or the rate of calls does not tell."""
    if not error.is_verdict():
        raise error
    return REFUTED, detail


# The text is the first column of src/aws/assumptions.rs, without its links; a test compares them.
CHECKS = [
    ('filter-values', 'A call takes MAX_FILTER_VALUES values in all its filters together.', Checks.filter_values),
    ('repeated-claim', 'Assigning an address that is already on the same ENI succeeds, with AllowReassignment.',
     Checks.repeated_claim),
    ('acknowledged-claim', 'A claim that EC2 answers with success has been performed, also for an address that the answer does'
     ' not list.', Checks.acknowledged_claim),
    ('batch', 'A batch is performed as a whole or not at all.', Checks.batch),
    ('denied-dry-run', 'A dry run that a policy does not allow is answered with UnauthorizedOperation, whatever else is wrong with'
     ' the call.', Checks.denied_dry_run),
    ('denied-claim', 'An assignment that a policy does not allow is answered with UnauthorizedOperation, whatever else'
     ' is wrong with the call.', Checks.denied_claim),
    ('dry-run-rate', 'EC2 counts a dry run like the call itself in its rate limit.', Checks.dry_run_rate),
    ('primary-first', 'The first line of local-ipv4s below an interface in IMDS is its primary address.', Checks.primary_first),
    ('clock', "A signature more than CLOCK_TOLERANCE from EC2's time may be refused, a closer one is not.", Checks.clock),
    ('idle-connection', 'EC2, and every middlebox on the path, keeps a connection that carries only TCP keepalive probes for as'
     ' long as we keep it (5 minutes).', Checks.idle_connection),
    ('key-renewal', "IMDS has an instance role's new credentials 5 minutes before the old ones expire, or earlier.",
     Checks.key_renewal),
]
