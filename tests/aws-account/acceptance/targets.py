"""Where the acceptance runs: in an AWS account, or against the simulator."""

import dataclasses
import json
import os
import pathlib
import random
import shutil
import subprocess

ROOT = pathlib.Path(__file__).parents[3]


@dataclasses.dataclass
class Times:
    """Bounds and durations, in seconds."""
    poll: float
    # Until a read shows what was changed: EC2, IMDS; and how long a refused batch is watched.
    settle: float
    imds: float
    batch: float
    # How long a connection is left idle: as long as the agent keeps one.
    idle: float
    create: float
    delete: float
    # Until SSM and the routers answer after the instances have started.
    ready: float
    # How long the clients send datagrams at most: while power is off, while a link is cut, until the master has everything back
    # (verify-interval and 5 s), and while a router boots. How long before that, and how long it has to last.
    probe: int
    cut: int
    heal: int
    boot: int
    before: float
    after: float
    # How long a call without an answer is repeated.
    patience: float


class Unusable(Exception):
    """What is missing on this machine."""


class Account:
    """An AWS account, as the environment and the files of the AWS CLI name it."""

    name = 'aws'
    times = Times(poll=5, settle=120, imds=120, batch=15, idle=300, create=900, delete=1800, ready=900, probe=45, cut=45,
                  heal=90, boot=300, before=5, after=15, patience=600)
    parameters = {}
    endpoint = None

    def __init__(self, options):
        self.program = shutil.which('aws')
        if not self.program:
            raise Unusable('the AWS CLI is not installed (https://aws.amazon.com/cli/)')
        self.environment = dict(os.environ)
        self.region = options.region or self.configured()
        if not self.region:
            raise Unusable('no region; use --region, or set AWS_REGION')
        if not options.delete:
            self.check_program()

    def check_program(self):
        """Before anything is made: the presigned URLs of version 1 do not work in every region, and older versions have no
        --skip-os-shutdown."""
        version = self.run('--version')
        if not version.startswith('aws-cli/2.') or 'SkipOsShutdown' not in self.run('ec2', 'stop-instances', '--generate-cli-skeleton'):
            raise Unusable(f'{self.program} is too old ({version.strip() or "version unknown"}): it needs version 2 of the AWS CLI,'
                           ' of August 2025 or later')

    def run(self, *arguments):
        return subprocess.run([self.program, *arguments], capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout

    def configured(self):
        named = os.environ.get('AWS_REGION') or os.environ.get('AWS_DEFAULT_REGION')
        return named or self.run('configure', 'get', 'region').strip()

    def close(self):
        pass


class Simulator:
    """tests/simulator and stand_in.py. VIPA_SIMULATOR names the simulator's program, VIPA_AWS_VENV the Python environment that
    tests/simulator/tests/make-venv makes."""

    name = 'simulator'
    times = Times(poll=1, settle=1.5, imds=1.5, batch=0.5, idle=5, create=60, delete=60, ready=60, probe=40, cut=40,
                  heal=40, boot=40, before=2, after=0.5, patience=20)

    def __init__(self, options):
        target = pathlib.Path(os.environ.get('CARGO_TARGET_DIR')
                              or pathlib.Path(os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache', 'vyos-aws-vipa/target'))
        program = os.environ.get('VIPA_SIMULATOR')
        if not program:
            subprocess.run(['cargo', 'build', '--locked', '--quiet', '--package', 'simulator'], cwd=ROOT, check=True,
                           env=os.environ | {'CARGO_TARGET_DIR': str(target)})
            program = target / 'debug/simulator'
        venv = pathlib.Path(os.environ.get('VIPA_AWS_VENV') or target / 'venv-aws')
        subprocess.run([ROOT / 'tests/simulator/tests/make-venv', venv], check=True)
        own = ('fail-to-create', 'fail-to-delete', 'lose-network', 'security-groups-cut')
        arguments = []
        for setting in options.simulate:
            name, _, value = setting.partition('=')
            if name == 'cut-seconds':
                self.times = dataclasses.replace(self.times, cut=int(value), heal=int(value) + 20)
            else:
                arguments += [f'--{name}', value] if name in own else ['--set', setting]
        # A session of its own: the terminal's Ctrl-C is not for it, since it is needed until the stack is deleted.
        self.process = subprocess.Popen(
            [venv / 'bin/python', '-B', ROOT / 'tests/aws-account/stand_in.py', '--simulator', program, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
        line = self.process.stdout.readline()
        if not line:
            raise Unusable('the stand-in did not start (see above)')
        started = json.loads(line)
        self.endpoint, self.region = started['endpoint'], started['region']
        self.program = str(venv / 'bin/aws')
        # Nothing of the operator's: neither keys nor files.
        self.environment = {'PATH': os.environ['PATH'], 'HOME': '/nonexistent', 'AWS_ACCESS_KEY_ID': started['access-key'],
                            'AWS_SECRET_ACCESS_KEY': started['secret'], 'AWS_EC2_METADATA_DISABLED': 'true',
                            'AWS_MAX_ATTEMPTS': '1'}
        # Loopback addresses, other ones in each run.
        network = random.randrange(1, 250)
        self.parameters = {'Network': f'127.{network}', 'OverlayAddress': f'127.{network + 1}.0.1', 'EchoPort': random.randrange(20000, 30000)}

    def close(self):
        self.process.stdin.close()
        self.process.wait()
