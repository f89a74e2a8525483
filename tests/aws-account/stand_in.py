"""Stands in for what scripts/accept-on-aws uses of AWS beside the EC2 calls that tests/simulator plays.

It is made to run the control flow of the acceptance without an account: one HTTP endpoint for CloudFormation, SSM, S3, STS
and a few more EC2 actions; every other EC2 action goes on to the simulator, whose world is made from the template.

It is not CloudFormation: it has the template's few types and functions, and creates nothing in order. It is not SSM: what
is sent to a client runs as a program of this machine, with IMDS and EC2 of the simulator; routers have only the commands of
nftables that cut a link. Its routers are not vyos-aws-vipa and keepalived: they are a loop that takes address, route and
Elastic IP when VRRP would. tests/routers has the real ones. Its network is a UDP socket on each address, in 127.0.0.0/8. So
times that are measured against it say nothing about AWS or about the product.

    stand_in.py --simulator PROGRAM [--set SETTING=JSON …] [--fail-to-create LOGICAL-ID] [--fail-to-delete LOGICAL-ID]
                [--lose-network ACTION] [--security-groups-cut no]

prints a line of JSON with its endpoint and access key, and runs until its standard input ends.
"""

import argparse
import base64
import http.client
import http.server
import itertools
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from xml.sax.saxutils import escape

import yaml

REGION = 'eu-west-1'
ACCOUNT = '123456789012'
# VRRP's intervals are a tenth of the real ones.
ADVERT = 0.1
DOWN = 3.6 * ADVERT
STARTING = 0.5
# For so long nothing is answered once the network is lost.
LOST = 3


### The template


def _function(loader, suffix, node):
    name = suffix if suffix in ('Ref', 'Condition') else f'Fn::{suffix}'
    if isinstance(node, yaml.ScalarNode):
        value = loader.construct_scalar(node)
        return {name: value.split('.', 1) if suffix == 'GetAtt' else value}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    return {name: loader.construct_mapping(node, deep=True)}


class _Loader(yaml.SafeLoader):
    pass


_Loader.add_multi_constructor('!', _function)


class Refused(Exception):
    """An error as an AWS service answers it."""

    def __init__(self, code, message, status=400):
        super().__init__(f'{code}: {message}')
        self.code, self.message, self.status = code, message, status


class Stack:
    """The resources of a template, with ids as the simulator accepts them."""

    PREFIXES = {
        'AWS::EC2::VPC': 'vpc', 'AWS::EC2::Subnet': 'subnet', 'AWS::EC2::NetworkInterface': 'eni',
        'AWS::EC2::Instance': 'i', 'AWS::EC2::RouteTable': 'rtb', 'AWS::EC2::EIP': 'eipalloc',
        'AWS::EC2::InternetGateway': 'igw', 'AWS::EC2::SecurityGroup': 'sg', 'AWS::EC2::LaunchTemplate': 'lt',
        'AWS::EC2::VPCEndpoint': 'vpce',
    }

    def __init__(self, name, body, given):
        self.name, self.status = name, 'CREATE_COMPLETE'
        self.id = f'arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{name}/{secrets.token_hex(8)}'
        template = yaml.load(body, _Loader)
        self.parameters = {}
        for key, parameter in template['Parameters'].items():
            if key not in given and 'Default' not in parameter:
                raise Refused('ValidationError', f'Parameters: [{key}] must have values')
            value = str(given.pop(key, parameter.get('Default')))
            if value not in map(str, parameter.get('AllowedValues', [value])):
                raise Refused('ValidationError', f'Parameter {key} must be one of AllowedValues')
            self.parameters[key] = value
        if given:
            raise Refused('ValidationError', f'Parameters: {sorted(given)} do not exist in the template')
        self.ids, self.publics = {}, {}
        self.conditions = template.get('Conditions', {})
        self.resources = {key: resource for key, resource in template['Resources'].items()
                          if 'Condition' not in resource or self.holds(resource['Condition'])}
        numbers = itertools.count(1)
        self.ids = {key: self._id(resource['Type'], next(numbers)) for key, resource in self.resources.items()}
        # Loopback addresses, so that packets to them arrive on this machine.
        network = self.parameters['Network'].split('.')[1]
        publics = itertools.count(1)
        self.publics = {key: f'127.{network}.203.{next(publics)}' for key in self.of('AWS::EC2::EIP')}
        self.outputs = {key: self.value(output['Value']) for key, output in template['Outputs'].items()
                        if 'Condition' not in output or self.holds(output['Condition'])}

    def _id(self, kind, number):
        prefix = self.PREFIXES.get(kind)
        return f'{prefix}-{number:017x}' if prefix else f'{kind.rsplit("::", 1)[1].lower()}-{number}'

    def of(self, kind):
        return [key for key, resource in self.resources.items() if resource['Type'] == kind]

    def properties(self, key):
        return self.resources[key].get('Properties', {})

    def holds(self, condition):
        return self.value(self.conditions[condition])

    def value(self, value):
        """What an expression of the template stands for."""
        if isinstance(value, list):
            return [self.value(item) for item in value if item != {'Ref': 'AWS::NoValue'}]
        if not isinstance(value, dict):
            return value
        if len(value) != 1 or next(iter(value)) not in ('Ref',) and not next(iter(value)).startswith('Fn::'):
            return {key: self.value(inner) for key, inner in value.items()}
        (name, argument), = value.items()
        if name == 'Ref':
            return self.reference(argument)
        if name == 'Fn::GetAtt':
            return self.attribute(*argument)
        if name == 'Fn::Sub':
            return re.sub(r'\$\{([\w:.]+)\}', lambda match: str(
                self.attribute(*match[1].split('.', 1)) if '.' in match[1] else self.reference(match[1])), argument)
        if name == 'Fn::Equals':
            return self.value(argument[0]) == self.value(argument[1])
        if name == 'Fn::If':
            return self.value(argument[1 if self.holds(argument[0]) else 2])
        if name == 'Fn::Select':
            return self.value(argument[1])[int(argument[0])]
        if name == 'Fn::GetAZs':
            return [f'{REGION}{letter}' for letter in 'abc']
        if name == 'Fn::Base64':
            return base64.b64encode(self.value(argument).encode()).decode()
        raise Refused('ValidationError', f'the stand-in does not support {name}')

    def reference(self, name):
        pseudo = {'AWS::Region': REGION, 'AWS::AccountId': ACCOUNT, 'AWS::Partition': 'aws',
                  'AWS::URLSuffix': 'amazonaws.com', 'AWS::StackName': self.name, 'AWS::NoValue': None}
        for known in (pseudo, self.parameters, self.ids):
            if name in known:
                return known[name]
        raise Refused('ValidationError', f'Template format error: Unresolved resource dependencies [{name}]')

    def attribute(self, key, name):
        known = {'AllocationId': self.ids.get(key), 'PublicIp': self.publics.get(key), 'LatestVersionNumber': '1',
                 'Arn': f'arn:aws:iam::{ACCOUNT}:thing/{key}'}
        if key not in self.ids or known.get(name) is None:
            raise Refused('ValidationError', f'Template error: resource {key} has no attribute {name}')
        return known[name]

    def world(self, settings, access_key, secret):
        """What the simulator simulates."""
        associated = {}
        for key in self.of('AWS::EC2::EIPAssociation'):
            given = self.value(self.properties(key))
            associated[given['AllocationId']] = (given['NetworkInterfaceId'], given['PrivateIpAddress'])
        macs = itertools.count(1)

        def interface(eni, given):
            addresses = given.get('PrivateIpAddresses') or [{'PrivateIpAddress': given['PrivateIpAddress'], 'Primary': True}]
            return {'id': eni, 'mac': f'02:00:00:00:00:{next(macs):02x}', 'subnet': given['SubnetId'],
                    'primary': next(each['PrivateIpAddress'] for each in addresses if each['Primary']),
                    'secondary': [each['PrivateIpAddress'] for each in addresses if not each['Primary']],
                    'source-dest-check': given.get('SourceDestCheck', True), 'address-limit': 4}

        enis = {self.ids[key]: interface(self.ids[key], self.value(self.properties(key)))
                for key in self.of('AWS::EC2::NetworkInterface')}
        instances = []
        for key in self.of('AWS::EC2::Instance'):
            given = self.value(self.properties(key))
            interfaces = [enis.pop(each['NetworkInterfaceId']) if 'NetworkInterfaceId' in each
                          else interface(f'eni-f{self.ids[key][3:]}', each) for each in given['NetworkInterfaces']]
            instances.append({'id': self.ids[key], 'role': key.lower(), 'network-interfaces': interfaces})
        routes = {self.ids[key]: {} for key in self.of('AWS::EC2::RouteTable')}
        for key in self.of('AWS::EC2::Route'):
            given = self.value(self.properties(key))
            routes[given['RouteTableId']][given['DestinationCidrBlock']] = given['GatewayId']
        places = [self.value(self.properties(key)) for key in self.of('AWS::EC2::SubnetRouteTableAssociation')]
        vpc, = self.of('AWS::EC2::VPC')
        world = {
            'region': REGION, 'account': ACCOUNT, 'stale-reads': {'exactly-ms': 0},
            'throttling': {'mutating-burst': 40, 'mutating-per-second': 0.5},
            'vpcs': [{'id': self.ids[vpc], 'cidr': self.value(self.properties(vpc)['CidrBlock'])}],
            'subnets': [{'id': self.ids[key], 'vpc': self.ids[vpc], 'cidr': given['CidrBlock'],
                         'availability-zone': given['AvailabilityZone']}
                        for key in self.of('AWS::EC2::Subnet') for given in [self.value(self.properties(key))]],
            'instances': instances, 'network-interfaces': list(enis.values()),
            'route-tables': [{'id': table, 'vpc': self.ids[vpc], 'routes': known,
                              'subnets': [place['SubnetId'] for place in places if place['RouteTableId'] == table]}
                             for table, known in routes.items()],
            'elastic-ips': [{'id': self.ids[key], 'public': public} | dict(zip(
                ('network-interface', 'private'), associated.get(self.ids[key], ()))) for key, public in self.publics.items()],
            'access-keys': [{'id': access_key, 'secret': secret}],
        }
        return world | settings


### What the stack's instances do


class Region:
    """A stack that exists: the simulator, the routers, the network between them and the clients."""

    def __init__(self, stack, simulator, settings, access_key, secret, groups_cut):
        self.stack, self.groups_cut = stack, groups_cut
        self.directory = tempfile.TemporaryDirectory(prefix='acceptance-')
        world, self.socket = (os.path.join(self.directory.name, name) for name in ('world.json', 'socket'))
        with open(world, 'w') as file:
            json.dump(stack.world(settings, access_key, secret), file)
        clients = [stack.ids[key] for key in ('Near', 'Far')]
        self.process = subprocess.Popen(
            [simulator, 'serve', '--world', world, '--socket', self.socket, '--ec2-http', '127.0.0.1:0']
            + [argument for client in clients for argument in ('--imds', f'{client}=127.0.0.1:0')],
            stdout=subprocess.PIPE, text=True)
        urls = []
        for line in self.process.stdout:
            if line.strip() == 'ready':
                break
            urls.append(line.split()[-1])
        else:
            raise RuntimeError('the simulator did not start')
        self.ec2, self.imds = urls[0], dict(zip(clients, urls[1:]))
        self.connection = socket.socket(socket.AF_UNIX)
        self.connection.connect(self.socket)
        self.answers = self.connection.makefile()
        self.lock = threading.RLock()
        # The simulator has no policies: what the clients' role does not allow is denied one by one.
        allowed = json.dumps(stack.value(stack.properties('ClientRole')['Policies']))
        for client in clients:
            for action in ('ReplaceRoute', 'CreateRoute', 'AssociateAddress', 'AssignPrivateIpAddresses'):
                if f'"ec2:{action}"' not in allowed:
                    self.tell('add-fault', fault={'on': {'action': action, 'instance': client}, 'effect': 'deny'})
        self.ended = threading.Event()
        self.routers = [stack.outputs[key] for key in ('Router1', 'Router2') if key in stack.outputs]
        self.enis = dict(zip((stack.outputs['Router1Interface'], stack.outputs['Router2Interface']), self.routers))
        now = time.monotonic()
        self.up_since = {router: now for router in self.routers}
        self.heard = {router: now for router in self.routers}
        self.groups = {router: {'VrrpGroup', 'RouterGroup'} for router in self.routers}
        self.filtered, self.master = {}, {router: False for router in self.routers}
        network = stack.parameters['Network']
        self.elastic = dict(zip(self.routers, (f'{network}.0.72', f'{network}.0.73')))
        outputs, port = stack.outputs, int(stack.parameters['EchoPort'])
        self.overlay = f"{outputs['OverlayAddress']}/32"
        self.targets = {
            outputs['VirtualAddress']: ('owner', {'address': outputs['VirtualAddress']}),
            outputs['OverlayAddress']: ('route', {'table': outputs['RoutesB'], 'destination': self.overlay}),
            outputs['PublicOfVirtual']: ('association', {'allocation': stack.ids['AddressOfVirtual']}),
            outputs['PublicOfMaster']: ('association', {'allocation': stack.ids['AddressOfMaster']}),
        }
        self.leads_to = {}
        self.threads = [threading.Thread(target=self.run_routers)] if self.routers else []
        for address in self.targets if self.routers else ():
            service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            service.bind((address, port))
            service.settimeout(0.1)
            self.threads.append(threading.Thread(target=self.answer, args=(service, address)))
        for thread in self.threads:
            thread.start()

    def close(self):
        self.ended.set()
        for thread in self.threads:
            thread.join()
        self.answers.close()
        self.connection.close()
        self.process.terminate()
        self.process.wait()
        self.process.stdout.close()
        self.directory.cleanup()

    def tell(self, command, **arguments):
        with self.lock:
            self.connection.sendall(json.dumps({'command': command} | arguments).encode() + b'\n')
            answer = json.loads(self.answers.readline())
        if 'error' in answer:
            code, _, message = answer['error'].partition(': ')
            raise Refused(code, message)
        return answer['ok']

    def is_up(self, router):
        since = self.up_since.get(router)
        return since is not None and time.monotonic() - since >= 0

    def is_cut(self, router, everything):
        """Whether the router's own rules drop VRRP, or everything."""
        until, protocol = self.filtered.get(router, (0, None))
        return time.monotonic() < until and (protocol == 'all' or not everything)

    def reaches(self, router, vrrp=False):
        """Whether the router's packets get out of its interface."""
        by_group = ('VrrpGroup' if vrrp else 'RouterGroup') not in self.groups[router]
        return self.is_up(router) and not (by_group and self.groups_cut) and not self.is_cut(router, everything=not vrrp)

    def run_routers(self):
        first, second = self.routers
        while not self.ended.wait(0.05):
            with self.lock:
                now = time.monotonic()
                hears = self.reaches(first, vrrp=True) and self.reaches(second, vrrp=True)
                if hears:
                    self.heard[second] = now
                masters = {first: self.is_up(first), second: self.is_up(second) and now - self.heard[second] > DOWN}
                for router, master in masters.items():
                    fresh = master and not self.master[router]
                    self.master[router] = master
                    outranks = router == first and hears
                    if master and self.reaches(router) and (fresh or outranks):
                        self.claim(router)
                for address, (command, arguments) in self.targets.items():
                    found = self.tell(command, **arguments)
                    if command == 'route':
                        found = found and not found['blackhole'] and found['target']
                    elif command == 'association':
                        found = found and found['network-interface']
                    self.leads_to[address] = self.enis.get(found)

    def claim(self, router):
        eni = next(eni for eni, owner in self.enis.items() if owner == router)
        outputs = self.stack.outputs
        if self.leads_to.get(outputs['VirtualAddress']) != router:
            self.tell('steal', address=outputs['VirtualAddress'], eni=eni)
        if self.leads_to.get(outputs['OverlayAddress']) != router:
            for table in ('RoutesA', 'RoutesB'):
                self.tell('steal-route', table=self.stack.ids[table], destination=self.overlay, target=eni)
        if self.leads_to.get(outputs['PublicOfMaster']) != router:
            self.tell('steal-association', allocation=self.stack.ids['AddressOfMaster'], eni=eni, private=self.elastic[router])

    def answer(self, service, address):
        with service:
            while not self.ended.is_set():
                try:
                    data, peer = service.recvfrom(64)
                except TimeoutError:
                    continue
                router = self.leads_to.get(address)
                if router and self.reaches(router) and self.master[router]:
                    service.sendto(data + f' router{self.routers.index(router) + 1}'.encode(), peer)

    def run(self, instance, lines):
        """Runs a command of SSM; returns exit code, standard output and standard error."""
        if instance in self.routers:
            text = '\n'.join(lines)
            if text == 'true':
                return 0, '', ''
            drop = re.search(r'nft add rule ip acceptance in (ip protocol 112 )?drop;', text)
            seconds = re.search(r'; sleep (\d+);', text)
            if not (drop and seconds):
                return 127, '', 'the stand-in has no shell on its routers'
            self.filtered[instance] = (time.monotonic() + int(seconds[1]), 'vrrp' if drop[1] else 'all')
            return 0, '', ''
        environment = {'PATH': os.environ['PATH'], 'AWS_ENDPOINT_URL_EC2': self.ec2,
                       'AWS_EC2_METADATA_SERVICE_ENDPOINT': self.imds[instance]}
        done = subprocess.run(['/bin/sh', '-c', '\n'.join(lines)], env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr


### The services


class Services:
    """Everything behind the endpoint."""

    def __init__(self, options):
        self.options = options
        self.settings = dict(setting.split('=', 1) for setting in options.set)
        self.settings = {key: json.loads(value) for key, value in self.settings.items()}
        self.access_key, self.secret = f'AKIA{secrets.token_hex(8).upper()}', secrets.token_hex(20)
        self.stack = self.region = None
        self.buckets, self.commands = {}, {}
        self.terminated = set()
        self.reservations = {}
        self.lost_until = None

    def close(self):
        if self.region:
            self.region.close()
            self.region = None

    # CloudFormation

    def cloudformation(self, action, given):
        if action == 'CreateStack':
            pairs = zip(listed(given, 'Parameters.member.{}.ParameterKey'), listed(given, 'Parameters.member.{}.ParameterValue'))
            if 'CAPABILITY_IAM' not in listed(given, 'Capabilities.member.{}'):
                raise Refused('InsufficientCapabilities', 'Requires capabilities : [CAPABILITY_IAM]')
            stack = Stack(given['StackName'], given['TemplateBody'], dict(pairs))
            self.region = Region(stack, self.options.simulator, self.settings, self.access_key, self.secret,
                                 self.options.security_groups_cut == 'yes')
            if self.options.fail_to_create:
                stack.status = 'CREATE_FAILED'
            self.stack = stack
            return f'<StackId>{stack.id}</StackId>'
        stack = self.stack
        # A stack that is deleted is found by its id alone.
        if not stack or given['StackName'] not in ([stack.id] if stack.status == 'DELETE_COMPLETE' else [stack.id, stack.name]):
            raise Refused('ValidationError', f"Stack with id {given['StackName']} does not exist")
        if action == 'DescribeStacks':
            outputs = ''.join(f'<member><OutputKey>{key}</OutputKey><OutputValue>{value}</OutputValue></member>'
                              for key, value in stack.outputs.items() if stack.status == 'CREATE_COMPLETE')
            return (f'<Stacks><member><StackId>{stack.id}</StackId><StackName>{stack.name}</StackName>'
                    f'<CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>{stack.status}</StackStatus>'
                    f'<Outputs>{outputs}</Outputs></member></Stacks>')
        if action == 'DescribeStackResources':
            return '<StackResources>' + ''.join(
                f'<member><LogicalResourceId>{key}</LogicalResourceId><PhysicalResourceId>{stack.publics.get(key, stack.ids[key])}'
                f"</PhysicalResourceId><ResourceType>{resource['Type']}</ResourceType>"
                '<Timestamp>2026-01-01T00:00:00Z</Timestamp><ResourceStatus>'
                f"{self.resource_status(key)}</ResourceStatus></member>"
                for key, resource in stack.resources.items()) + '</StackResources>'
        if action == 'DeleteStack':
            running = self.region and any(self.region.is_up(router) for router in self.region.routers)
            if running or self.reservations:
                raise Refused('ValidationError', 'the stand-in wants routers and reservations to be gone before')
            for key in ('AddressOfMaster', 'AddressOfVirtual'):
                if self.region and self.region.tell('association', allocation=stack.ids[key]):
                    raise Refused('ValidationError', f'{key} is associated, and cannot be released')
            stack.status = 'DELETE_FAILED' if self.options.fail_to_delete else 'DELETE_COMPLETE'
            self.close()
            return ''
        raise Refused('InvalidAction', f'the stand-in does not support {action}')

    def resource_status(self, key):
        if self.stack.status.startswith('CREATE_'):
            return 'CREATE_FAILED' if key == self.options.fail_to_create else 'CREATE_COMPLETE'
        return 'DELETE_FAILED' if key == self.options.fail_to_delete else 'DELETE_COMPLETE'

    # SSM

    def ssm(self, action, given):
        if action == 'GetParameter':
            if not given['Name'].startswith('/aws/service/'):
                raise Refused('ParameterNotFound', given['Name'])
            digits = f"{sum(given['Name'].encode()):017x}"
            return {'Parameter': {'Name': given['Name'], 'Type': 'String', 'Value': f'ami-{digits}'}}
        if action == 'DescribeInstanceInformation':
            return {'InstanceInformationList': [{'InstanceId': self.stack.ids[key], 'PingStatus': 'Online'}
                                                for key in self.stack.of('AWS::EC2::Instance')]}
        if action == 'SendCommand':
            instance, = given['InstanceIds']
            if not self.region or instance in self.region.routers and not self.region.is_up(instance):
                raise Refused('InvalidInstanceId', 'Instances not in a valid state for account')
            name = f'{secrets.token_hex(4)}-{secrets.token_hex(2)}-{secrets.token_hex(2)}-{secrets.token_hex(2)}-{secrets.token_hex(6)}'
            command = self.commands[name] = {'CommandId': name, 'InstanceId': instance, 'Status': 'InProgress'}

            def run():
                code, output, errors = self.region.run(instance, given['Parameters']['commands'])
                command.update(Status='Success' if code == 0 else 'Failed', ResponseCode=code,
                               StandardOutputContent=output[:24000], StandardErrorContent=errors[:8000])

            threading.Thread(target=run, daemon=True).start()
            return {'Command': {'CommandId': name, 'DocumentName': given['DocumentName'], 'Status': 'Pending'}}
        if action == 'GetCommandInvocation':
            if given['CommandId'] not in self.commands:
                raise Refused('InvocationDoesNotExist', '')
            return dict(self.commands[given['CommandId']])
        raise Refused('InvalidAction', f'the stand-in does not support {action}')

    # S3

    def s3(self, method, path, body):
        bucket, _, key = path.lstrip('/').partition('/')
        if method == 'PUT' and not key:
            self.buckets[bucket] = {}
        elif bucket not in self.buckets:
            raise Refused('NoSuchBucket', bucket, 404)
        elif method == 'PUT':
            self.buckets[bucket][key] = body
        elif method == 'DELETE' and key:
            self.buckets[bucket].pop(key, None)
        elif method == 'DELETE':
            if self.buckets[bucket]:
                raise Refused('BucketNotEmpty', bucket, 409)
            del self.buckets[bucket]
        else:
            raise Refused('MethodNotAllowed', method, 405)

    # EC2

    def ec2(self, action, given):
        """Answers an action that the simulator does not know; `None` for one that it does."""
        region = self.region
        now = time.monotonic()
        if action == 'DescribeImages':
            return ('<imagesSet><item><imageId>ami-00000000000000001</imageId><name>debian-12-amd64</name>'
                    '<description>Debian 12</description><imageState>available</imageState></item></imagesSet>')
        if action == 'CreateSubnetCidrReservation':
            reserved = f'scr-{len(self.reservations) + 1:017x}'
            self.reservations[reserved] = given['Cidr']
            return (f'<subnetCidrReservation><subnetCidrReservationId>{reserved}</subnetCidrReservationId>'
                    f"<cidr>{given['Cidr']}</cidr></subnetCidrReservation>")
        if action == 'GetSubnetCidrReservations':
            return '<subnetIpv4CidrReservationSet>' + ''.join(
                f"<item><subnetCidrReservationId>{reserved}</subnetCidrReservationId><subnetId>{given['SubnetId']}</subnetId>"
                f'<cidr>{cidr}</cidr></item>' for reserved, cidr in self.reservations.items()) + '</subnetIpv4CidrReservationSet>'
        if action == 'GetConsoleOutput':
            return f"<instanceId>{given['InstanceId']}</instanceId><output></output>"
        if action == 'DeleteSubnetCidrReservation':
            if self.reservations.pop(given['SubnetCidrReservationId'], None) is None:
                raise Refused('InvalidSubnetCidrReservationID.NotFound', given['SubnetCidrReservationId'])
            return ''
        if action == 'DescribeInstances' and self.terminated.issuperset(listed(given, 'InstanceId.{}')):
            return '<reservationSet><item><instancesSet>' + ''.join(
                f'<item><instanceId>{instance}</instanceId><instanceState><code>48</code><name>terminated</name></instanceState></item>'
                for instance in listed(given, 'InstanceId.{}')) + '</instancesSet></item></reservationSet>'
        if action == 'TerminateInstances':
            self.terminated.update(listed(given, 'InstanceId.{}'))
        if action in ('StopInstances', 'TerminateInstances'):
            for instance in listed(given, 'InstanceId.{}'):
                with region.lock:
                    region.up_since[instance] = None
                    region.tell('stop-instance', instance=instance)
            return '<instancesSet/>'
        if action == 'StartInstances':
            for instance in listed(given, 'InstanceId.{}'):
                with region.lock:
                    region.up_since[instance] = now + STARTING
                    region.tell('start-instance', instance=instance)
            return '<instancesSet/>'
        if action == 'ModifyNetworkInterfaceAttribute':
            names = {identifier: name for name, identifier in self.stack.ids.items()}
            region.groups[region.enis[given['NetworkInterfaceId']]] = {names[group] for group in listed(given, 'SecurityGroupId.{}')}
            return '<return>true</return>'
        return None

    def is_lost(self, body):
        """Whether the network is lost, which one action brings about."""
        action = self.options.lose_network
        if action and self.lost_until is None and f'Action={action}&'.encode() in body:
            self.lost_until = time.monotonic() + LOST
        return self.lost_until is not None and time.monotonic() < self.lost_until

    def handle(self, request, body):
        authorization = re.search(r'Credential=([^/]+)/\d+/[^/]+/([^/]+)/', request.headers.get('Authorization', ''))
        if not authorization or authorization[1] != self.access_key:
            return 403, 'text/xml', error('query', Refused('InvalidClientTokenId', 'this is not the key of this stand-in'))
        service = authorization[2]
        try:
            if service == 'ssm':
                action = request.headers['X-Amz-Target'].rpartition('.')[2]
                return 200, 'application/x-amz-json-1.1', json.dumps(self.ssm(action, json.loads(body)))
            if service == 's3':
                self.s3(request.command, urllib.parse.urlsplit(request.path).path, body)
                return (204 if request.command == 'DELETE' else 200), 'application/xml', ''
            given = dict(urllib.parse.parse_qsl(body.decode(), keep_blank_values=True))
            action = given['Action']
            if service == 'sts':
                return 200, 'text/xml', answer(action, f'<GetCallerIdentityResult><Account>{ACCOUNT}</Account><UserId>AIDA</UserId>'
                                               f'<Arn>arn:aws:iam::{ACCOUNT}:user/operator</Arn></GetCallerIdentityResult>')
            if service == 'cloudformation':
                result = self.cloudformation(action, given)
                return 200, 'text/xml', answer(action, f'<{action}Result>{result}</{action}Result>')
            result = self.ec2(action, given)
            if result is not None:
                return 200, 'text/xml', answer(action, f'<requestId>stand-in</requestId>{result}')
            if not self.region:
                raise Refused('InvalidAction', f'the stand-in has no stack for {action}')
            return self.forward(request, body)
        except Refused as refused:
            if service == 'ssm':
                return refused.status, 'application/x-amz-json-1.1', json.dumps({'__type': refused.code, 'message': refused.message})
            return refused.status, 'text/xml', error('ec2' if service == 'ec2' else service, refused)

    def forward(self, request, body):
        """Hands a request to the simulator as it came: it checks the signature."""
        connection = http.client.HTTPConnection(urllib.parse.urlsplit(self.region.ec2).netloc, timeout=30)
        try:
            connection.putrequest(request.command, request.path, skip_host=True, skip_accept_encoding=True)
            for name, value in request.headers.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            return reply.status, reply.headers['Content-Type'], reply.read().decode()
        finally:
            connection.close()


def listed(given, pattern):
    """The values of `pattern` with 1, 2, … in the place of `{}`."""
    names = (pattern.format(number) for number in itertools.count(1))
    return [given[name] for name in itertools.takewhile(given.__contains__, names)]


def answer(action, inner):
    return f'<{action}Response>{inner}</{action}Response>'


def error(service, refused):
    inner = f'<Error><Code>{refused.code}</Code><Message>{escape(refused.message)}</Message></Error>'
    if service == 'ec2':
        return f'<Response><Errors>{inner}</Errors><RequestID>stand-in</RequestID></Response>'
    return inner if service == 's3' else f'<ErrorResponse>{inner}</ErrorResponse>'


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--simulator', required=True)
    parser.add_argument('--set', action='append', default=[], metavar='SETTING=JSON')
    parser.add_argument('--fail-to-create', metavar='LOGICAL-ID')
    parser.add_argument('--fail-to-delete', metavar='LOGICAL-ID')
    parser.add_argument('--lose-network', metavar='ACTION')
    parser.add_argument('--security-groups-cut', choices=['yes', 'no'], default='yes')
    services = Services(parser.parse_args())
    # The terminal's Ctrl-C is for the acceptance, which still needs this endpoint to delete the stack.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = 'HTTP/1.1'

        def respond(self):
            body = self.rfile.read(int(self.headers.get('Content-Length') or 0))
            if services.is_lost(body):
                self.close_connection = True
                return
            try:
                status, kind, text = services.handle(self, body)
            except Exception as failure:
                status, kind, text = 500, 'text/plain', f'stand-in: {failure!r}'
                print(text, file=sys.stderr, flush=True)
            data = text.encode()
            self.send_response(status)
            self.send_header('Content-Type', kind)
            self.send_header('Content-Length', str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = respond

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(json.dumps({'endpoint': f'http://127.0.0.1:{server.server_port}', 'region': REGION,
                      'access-key': services.access_key, 'secret': services.secret}), flush=True)
    sys.stdin.read()
    services.close()


if __name__ == '__main__':
    main()
