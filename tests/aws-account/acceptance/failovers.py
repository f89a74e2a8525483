"""Failovers, measured from the clients: when does which router answer?"""

import dataclasses
import time

from .aws import AwsError, wait_for_state

# What each client sends to: path, client, output of the stack.
PATHS = [
    ('same subnet, ARP entry cached', 'near', 'VirtualAddress'),
    ('other subnet', 'far', 'VirtualAddress'),
    ('route table', 'far', 'OverlayAddress'),
    ('Elastic IP of the virtual address', 'far', 'PublicOfVirtual'),
    ('Elastic IP of the master', 'far', 'PublicOfMaster'),
]
INTERVAL = 0.01


@dataclasses.dataclass
class Measurement:
    scenario: str
    path: str
    # Milliseconds without an answer; None: the other router never answered.
    outage: float | None
    before: str | None
    after: str | None
    detail: str
    # From, to (seconds since the probe began), router, answers.
    periods: list
    # Whether there was a failover to measure.
    counts: bool = True


class NotMeasured(Exception):
    """Why a scenario could not be measured."""


class Failovers:
    """The scenarios, one after the other. Each leaves router 1 as master."""

    def __init__(self, aws, stack, clients, routers, system, times, say):
        self.aws, self.stack, self.clients, self.routers = aws, stack, clients, routers
        self.system, self.times, self.say = system, times, say
        self.measurements, self.not_measured = [], []

    def run(self):
        self.scenario('before', self.get_ready)
        if self.not_measured:
            return
        for name, scenario in (('power off', self.power_off), ('link cut', self.link_cut), ('split-brain', self.split_brain)):
            self.scenario(name, scenario)

    def scenario(self, name, scenario):
        try:
            scenario()
        except (NotMeasured, AwsError) as reason:
            self.not_measured.append((name, str(reason)))
            self.say(f'{name}: not measured: {reason}')

    # Measuring

    def probes(self, seconds, awaited='', after=0):
        """Starts the clients' probes, which end `after` seconds after router `awaited` answers on all paths; returns a function
        that waits for their results."""
        commands = []
        for client, instance in self.clients.items():
            targets = [f'{number}={self.stack[output]}:{self.stack["EchoPort"]}'
                       for number, (_, sender, output) in enumerate(PATHS) if sender == client]
            commands.append(instance.start('probe', seconds, INTERVAL, awaited, after, *targets, seconds=seconds))
        for command in commands:
            command.began(within=60)

        def results():
            found = {}
            for command in commands:
                found |= command.result(within=seconds + 120)
            return {PATHS[int(number)][0]: each['periods'] for number, each in found.items()}

        return results

    def measure(self, scenario, seconds, old, new, act, judge):
        """Probes all paths while `act` happens, after which router `new` answers in place of `old`; returns on how many paths it
        does. `judge` is `outage` or `healed`."""
        results = self.probes(seconds, new, self.times.after)
        self.aws.interrupts.sleep(self.times.before)
        act()
        moved = 0
        for path, periods in results().items():
            measurement = judge(scenario, path, periods, old, new)
            self.measurements.append(measurement)
            moved += measurement.after == new
            took = 'no answer' if measurement.outage is None else f'{measurement.outage:.0f} ms'
            self.say(f'{scenario}: {path}: {took}{"; " if measurement.detail else ""}{measurement.detail}')
        return moved

    def get_ready(self):
        """Gives the virtual address its Elastic IP once router 1 has it, and waits for the routers."""
        deadline = time.monotonic() + self.times.ready
        while True:
            try:
                self.aws('ec2', 'associate-address', '--allocation-id', self.stack['AddressOfVirtual'], '--network-interface-id',
                         self.stack['Router1Interface'], '--private-ip-address', self.stack['VirtualAddress'])
                break
            except AwsError as error:
                # The address is not on the interface yet, or has just come.
                if time.monotonic() > deadline:
                    raise NotMeasured(f'router 1 has no {self.stack["VirtualAddress"]} within {self.times.ready} s: {error}') from error
            self.aws.interrupts.sleep(self.times.poll)
        self.wait_until_ready()

    def back(self, scenario, seconds, act):
        """The way back to router 1, which has to be complete before the next scenario."""
        if self.measure(scenario, seconds, 'router2', 'router1', act, healed) < len(PATHS):
            self.wait_until_ready()

    def wait_until_ready(self):
        """Waits until router 1 answers on every path."""
        deadline = time.monotonic() + self.times.ready
        while True:
            found = self.probes(1)()
            silent = [path for path, periods in found.items() if not any(period[2] == 'router1' for period in periods)]
            if not silent:
                return
            if time.monotonic() > deadline:
                raise NotMeasured(f'router 1 does not answer within {self.times.ready} s on: {", ".join(silent)}')
            self.aws.interrupts.sleep(self.times.poll)

    # Scenarios

    def power_off(self):
        first = self.routers[0]

        def stop():
            # Without the guest's shutdown, which would hand over in an orderly way.
            self.aws('ec2', 'stop-instances', '--instance-ids', first.id, '--skip-os-shutdown')

        self.measure('power off', self.times.probe, 'router1', 'router2', stop, outage)
        wait_for_state(self.aws, [first.id], 'stopped', within=600, poll=self.times.poll)
        start = lambda: self.aws('ec2', 'start-instances', '--instance-ids', first.id)
        self.back('power on again', self.times.boot, start)

    def link_cut(self):
        self.cut('link cut', 'link whole again', {'Router1Interface': 'IsolatedGroup'}, self.routers[:1], '')

    def split_brain(self):
        both = {'Router1Interface': 'RouterGroup', 'Router2Interface': 'RouterGroup'}
        self.cut('split-brain', 'split-brain heals', both, self.routers, 'ip protocol 112 ')

    def cut(self, name, name_healed, left, routers, what):
        """Leaves each interface of `left` one security group alone, and gives it the others back."""
        def groups(interface, *names):
            self.aws('ec2', 'modify-network-interface-attribute', '--network-interface-id', self.stack[interface],
                     '--groups', *(self.stack[name] for name in names))

        def cut():
            for interface, group in left.items():
                groups(interface, group)

        def heal():
            for interface in left:
                groups(interface, 'VrrpGroup', 'RouterGroup')

        try:
            moved = self.measure(f'{name} by security group', self.times.cut, 'router1', 'router2', cut, outage)
            if moved:
                self.back(name_healed, self.times.heal, heal)
                return
        except AwsError:
            heal()
            raise
        heal()
        note = f'the security groups did not stop VRRP within {self.times.cut} s'
        for measurement in self.measurements[-len(PATHS):]:
            measurement.counts, measurement.detail = False, note
        self.cut_on_routers(name, routers, what, note)

    def cut_on_routers(self, name, routers, what, note):
        """The same by rules on the routers. A security group lets a tracked flow go on after its rule is gone (EC2 User Guide,
        "Security group connection tracking"), so it may not cut VRRP at all."""
        if self.system != 'debian':
            raise NotMeasured(f'{note}, and VyOS has no SSM agent to cut it on the router')
        for router in routers:
            # SSM shows an agent as online for minutes after it has lost its connection.
            self.reach(router)
        self.say(f'{name}: {note}; nftables on the routers cuts it')
        seconds = self.times.cut
        # Heals by itself: with the link cut, no command would arrive. The first sleep lets the SSM agent say that the command was run.
        script = ('sleep 2; nft add table ip acceptance; '
                  "nft add chain ip acceptance in '{ type filter hook input priority -300; }'; "
                  "nft add chain ip acceptance out '{ type filter hook output priority -300; }'; "
                  f'nft add rule ip acceptance in {what}drop; nft add rule ip acceptance out {what}drop; '
                  f'sleep {seconds}; nft delete table ip acceptance')

        def cut():
            for router in routers:
                done = router.send(f'systemd-run --quiet /bin/sh -c "{script}"', seconds=60)
                done.wait_until(('Success',), within=60)

        # Once cut, once whole again, in one measurement.
        results = self.probes(self.times.before + seconds + self.times.heal)
        self.aws.interrupts.sleep(self.times.before)
        cut()
        for path, periods in results().items():
            end = max((number + 1 for number, period in enumerate(periods) if period[2] == 'router2'), default=len(periods))
            self.measurements += [outage(f'{name} by nftables', path, periods[:end], 'router1', 'router2'),
                                  healed(f'{name} by nftables, healed', path, periods, 'router2', 'router1')]
        self.wait_until_ready()

    def reach(self, router):
        """Waits until a command runs on a router."""
        deadline = time.monotonic() + self.times.ready
        while True:
            try:
                return router.send('true', seconds=10).wait_until(('Success',), within=60)
            except AwsError as error:
                if time.monotonic() > deadline:
                    raise NotMeasured(f'SSM does not reach {router.name}: {error}') from error
            self.aws.interrupts.sleep(self.times.poll)


def outage(scenario, path, periods, old, new):
    """The time between the last answer of router `old` and the first one of `new`, without a later answer of `old`."""
    before = [period for period in periods if period[2] == old]
    after = [period for period in periods if period[2] == new]
    if not before:
        return Measurement(scenario, path, None, None, after[0][2] if after else None, f'{old} did not answer before', periods)
    if not after:
        return Measurement(scenario, path, None, old, None, f'{new} did not answer', periods)
    first = after[0]
    last = max((period for period in before if period[0] < first[0]), key=lambda period: period[1], default=None)
    if last is None:
        return Measurement(scenario, path, None, None, new, f'{old} did not answer before {new}', periods)
    detail = ''
    if any(period[0] > first[0] for period in before):
        detail = f'{old} answered again later'
    longest = max((b[0] - a[1] for a, b in zip(after, after[1:])), default=0)
    if longest > 1:
        detail = f'then {longest * 1000:.0f} ms without an answer'
    return Measurement(scenario, path, max(0.0, first[0] - last[1]) * 1000, old, new, detail, periods)


def healed(scenario, path, periods, old, new):
    """The time between the last answer of router `old` and the next one of `new`. In a split-brain the routers take turns, so
    that `new` may have answered all along."""
    turn = max((number for number, period in enumerate(periods) if period[2] == old), default=None)
    if turn is None and periods:
        longest = max((b[0] - a[1] for a, b in zip(periods, periods[1:])), default=0)
        return Measurement(scenario, path, longest * 1000, new, new, f'{new} answered all along', periods)
    found = outage(scenario, path, periods[turn or 0:], old, new)
    found.periods = periods
    return found
