"""What the acceptance makes in the account: it is written down before it is made, and deleted whatever happens."""

import io
import json
import os
import pathlib
import secrets
import tarfile
import time

from .aws import AwsError, wait_for_state

HERE = pathlib.Path(__file__).parents[1]
TAG = 'vyos-aws-vipa-acceptance'


class Stack:
    """The stack, and what it needs beside it. Its state is in `made.json` of the report's directory."""

    def __init__(self, aws, directory, times, say):
        self.aws, self.times, self.say = aws, times, say
        self.file = directory / 'made.json'
        self.made = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.outputs = {}

    def __getitem__(self, name):
        return self.outputs[name]

    def note(self, **made):
        self.made |= made
        new = self.file.with_suffix('.new')
        new.write_text(json.dumps(self.made, indent=2) + '\n')
        new.replace(self.file)

    ### Create

    def bundle(self, package):
        """Puts the routers' files and the package where instances can fetch them; returns a URL that expires."""
        bucket = f'{TAG}-{self.made["account"]}-{secrets.token_hex(4)}'
        self.note(bucket=bucket)
        location = [] if self.aws.region == 'us-east-1' else [
            '--create-bucket-configuration', f'LocationConstraint={self.aws.region}']
        self.aws('s3api', 'create-bucket', '--bucket', bucket, *location)
        file = self.file.with_name('bundle.tar.gz')
        with tarfile.open(file, 'w:gz') as archive:
            for path in sorted((HERE / 'router').iterdir()):
                if path.is_file():
                    archive.add(path, path.name)
            archive.add(HERE.parents[1] / 'scripts/install-on-vyos', 'install-on-vyos')
            entry = tarfile.TarInfo('vyos-aws-vipa.deb')
            content = package.read_bytes()
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
        self.aws('s3api', 'put-object', '--bucket', bucket, '--key', file.name, '--body', file)
        file.unlink()
        return self.aws.output('s3', 'presign', f's3://{bucket}/{file.name}', '--expires-in', 3 * 3600)

    def create(self, parameters):
        name = f'{TAG}-{secrets.token_hex(4)}'
        self.note(stack=name)
        pairs = [{'ParameterKey': key, 'ParameterValue': str(value)} for key, value in parameters.items()]
        # In a file, because every user of this machine can read the arguments of a program, and one value is a presigned URL.
        file = self.file.with_name('parameters.json')
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), 'w') as writer:
            json.dump(pairs, writer)
        try:
            answer = self.aws(
                'cloudformation', 'create-stack', '--stack-name', name, '--template-body', f'file://{HERE / "template.yaml"}',
                '--parameters', f'file://{file}', '--capabilities', 'CAPABILITY_IAM', '--on-failure', 'DO_NOTHING',
                '--tags', f'Key={TAG},Value={name}')
        finally:
            file.unlink()
        self.note(stack=answer['StackId'])
        found = self.wait('CREATE_COMPLETE', within=self.times.create)
        self.outputs = outputs(found) | {key: str(parameters[key]) for key in ('Network', 'EchoPort')}
        # CloudFormation has this resource in a few regions only.
        self.aws('ec2', 'create-subnet-cidr-reservation', '--subnet-id', self['SubnetA'], '--reservation-type', 'explicit', '--cidr',
                 f'{parameters["Network"]}.0.64/26')

    def describe(self):
        return self.aws('cloudformation', 'describe-stacks', '--stack-name', self.made['stack'])['Stacks'][0]

    def wait(self, state, within):
        deadline = time.monotonic() + within
        while True:
            found = self.describe()
            if found['StackStatus'] == state:
                return found
            if not found['StackStatus'].endswith('_IN_PROGRESS'):
                raise AwsError('stack', found['StackStatus'], self.reasons() or found.get('StackStatusReason', 'no reason given'))
            if time.monotonic() > deadline:
                raise AwsError('stack', found['StackStatus'], f'not {state} within {within} s')
            self.aws.interrupts.sleep(self.times.poll)

    def resources(self, *names):
        """The ids of these resources that exist, by their names in the template."""
        return {each['LogicalResourceId']: each['PhysicalResourceId'] for each in self.described()
                if each['LogicalResourceId'] in names and each.get('PhysicalResourceId') and each['ResourceStatus'] != 'DELETE_COMPLETE'}

    def described(self):
        return self.aws('cloudformation', 'describe-stack-resources', '--stack-name', self.made['stack'])['StackResources']

    def reasons(self):
        """Which resources could not be created or deleted, and why."""
        try:
            return '; '.join(f'{each["LogicalResourceId"]}: {each.get("ResourceStatusReason", each["ResourceStatus"])}'
                             for each in self.described() if each['ResourceStatus'].endswith('_FAILED'))
        except AwsError as error:
            return str(error)

    ### Delete

    def delete(self):
        """Deletes all that was made; returns what is left, a line each."""
        left = []
        if 'stack' in self.made:
            found = self.found()
            if isinstance(found, AwsError):
                left.append(f'stack {self.made["stack"]}: {found}')
            elif found:
                # The name finds no stack any more once it is deleted; the id does.
                self.note(stack=found['StackId'])
                # Twice, because what one resource waited for may be gone by then, and one that was just being created is there.
                left += self.delete_stack() and self.delete_stack()
        if 'bucket' in self.made:
            bucket = self.made['bucket']
            left += failures([
                (f'object in bucket {bucket}', lambda: self.aws(
                    's3api', 'delete-object', '--bucket', bucket, '--key', 'bundle.tar.gz'), 'NoSuchBucket'),
                (f'bucket {bucket}', lambda: self.aws('s3api', 'delete-bucket', '--bucket', bucket), 'NoSuchBucket')])
        if not left:
            self.file.unlink(missing_ok=True)
        return left

    def delete_stack(self):
        # From the resources, because a stack that was not created to its end has no outputs.
        before = failures([
            ('routers', self.terminate_routers, 'InvalidInstanceID.NotFound'),
            ('Elastic IPs', self.disassociate, None),
            ('subnet CIDR reservation', self.delete_reservation, 'InvalidSubnetID.NotFound')])

        def delete():
            self.aws('cloudformation', 'delete-stack', '--stack-name', self.made['stack'])
            self.wait('DELETE_COMPLETE', within=self.times.delete)

        failed = failures([(f'stack {self.made["stack"]}', delete, None)])
        # Without the stack, none of its resources is left.
        return failed and before + failed

    def found(self):
        """The stack, None if there is none, or why that is unknown."""
        try:
            found = self.describe()
        except AwsError as error:
            return None if error.code == 'ValidationError' and 'does not exist' in error.message else error
        return None if found['StackStatus'] == 'DELETE_COMPLETE' else found

    def terminate_routers(self):
        """Before the rest: agents would take an Elastic IP back, and one that is associated cannot be released."""
        routers = self.resources('Router1', 'Router2').values()
        if routers:
            self.aws('ec2', 'terminate-instances', '--instance-ids', *routers)
            wait_for_state(self.aws, routers, 'terminated', within=self.times.delete, poll=self.times.poll)

    def disassociate(self):
        """Takes back the associations that the stack does not have."""
        # The id of an Elastic IP is its address in CloudFormation, in some versions with the allocation id after it.
        addresses = [address.split('|')[0] for address in self.resources('AddressOfMaster', 'AddressOfVirtual').values()]
        if addresses:
            answer = self.aws('ec2', 'describe-addresses', '--filters', f'Name=public-ip,Values={",".join(addresses)}')
            for association in filter(None, (each.get('AssociationId') for each in answer['Addresses'])):
                self.aws('ec2', 'disassociate-address', '--association-id', association)

    def delete_reservation(self):
        for subnet in self.resources('SubnetA').values():
            answer = self.aws('ec2', 'get-subnet-cidr-reservations', '--subnet-id', subnet)
            for reservation in answer.get('SubnetIpv4CidrReservations', []):
                self.aws('ec2', 'delete-subnet-cidr-reservation', '--subnet-cidr-reservation-id',
                         reservation['SubnetCidrReservationId'])


def failures(steps):
    """Performs each step: what it is about, what to do, and the code of an error that says there is nothing to do."""
    failed = []
    for what, undo, gone in steps:
        try:
            undo()
        except AwsError as error:
            if error.code is None or error.code != gone:
                failed.append(f'{what}: {error}')
    return failed


def outputs(found):
    return {each['OutputKey']: each['OutputValue'] for each in found.get('Outputs', [])}
