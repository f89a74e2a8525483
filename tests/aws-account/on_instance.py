"""What the acceptance runs on its clients. It comes with each command of SSM, and prints JSON.

    probe SECONDS INTERVAL ROUTER AFTER NAME=ADDRESS:PORT …
                                                 sends datagrams, and says when which router answered; ends earlier once
                                                 ROUTER has answered everywhere for AFTER seconds, without a gap
    clock OFFSET …                               sends EC2 requests that are signed as of so many seconds from now
    call TIMES CODE NAME=VALUE …                 sends one EC2 request TIMES times, or until it is answered with CODE
    idle SECONDS                                 uses one connection to EC2 again after it was idle
    key                                          what IMDS says about the role's key
    addresses                                    local-ipv4s of the first interface in IMDS
"""

import collections
import concurrent.futures
import datetime
import hashlib
import hmac
import http.client
import json
import os
import select
import socket
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

IMDS = os.environ.get('AWS_EC2_METADATA_SERVICE_ENDPOINT', 'http://169.254.169.254')
# Two answers further apart are two periods.
GAP = 0.1
# As the agent's connections have it.
KEEPALIVE = 60
CONNECTIONS = 4


def metadata(path):
    def ask(method, path, header):
        request = urllib.request.Request(f'{IMDS}/latest/{path}', method=method, headers=dict([header]))
        with urllib.request.urlopen(request, timeout=5) as reply:
            return reply.read().decode()

    token = ask('PUT', 'api/token', ('X-aws-ec2-metadata-token-ttl-seconds', '60'))
    return ask('GET', f'meta-data/{path}', ('X-aws-ec2-metadata-token', token))


def role_key():
    role = metadata('iam/security-credentials/').strip()
    return json.loads(metadata(f'iam/security-credentials/{role}'))


class Ec2:
    """One connection to EC2's endpoint, and requests on it."""

    def __init__(self):
        self.region, self.key = metadata('placement/region'), role_key()
        domain = metadata('services/domain')
        url = os.environ.get('AWS_ENDPOINT_URL_EC2', f'https://ec2.{self.region}.{domain}')
        endpoint = urllib.parse.urlsplit(url)
        self.host = endpoint.netloc
        kind = http.client.HTTPSConnection if endpoint.scheme == 'https' else http.client.HTTPConnection
        self.connection = kind(self.host, timeout=5)
        self.connection.connect()
        self.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE)
        self.connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, KEEPALIVE)

    def describe(self, offset=0):
        """Sends a small request, signed as of `offset` seconds from now."""
        return self.send({'Action': 'DescribeNetworkInterfaces', 'Filter.1.Name': 'network-interface-id',
                          'Filter.1.Value.1': 'eni-00000000'}, offset)

    def send(self, parameters, offset=0):
        """Returns status and error code."""
        body = urllib.parse.urlencode({'Version': '2016-11-15'} | parameters)
        now = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(seconds=offset)
        headers = self.signed(body, now)
        self.connection.request('POST', '/', body, headers)
        reply = self.connection.getresponse()
        text = reply.read().decode()
        code = text.partition('<Code>')[2].partition('</Code>')[0] or None
        return {'status': reply.status, 'code': code}

    def signed(self, body, now):
        """Signature Version 4 (IAM User Guide, "Create a signed AWS API request")."""
        date, day = now.strftime('%Y%m%dT%H%M%SZ'), now.strftime('%Y%m%d')
        headers = {'content-type': 'application/x-www-form-urlencoded; charset=utf-8', 'host': self.host,
                   'x-amz-date': date, 'x-amz-security-token': self.key['Token']}
        names = ';'.join(headers)
        lines = ''.join(f'{name}:{value}\n' for name, value in headers.items())
        canonical = f'POST\n/\n\n{lines}\n{names}\n{hashlib.sha256(body.encode()).hexdigest()}'
        scope = f'{day}/{self.region}/ec2/aws4_request'
        text = f'AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}'
        key = f"AWS4{self.key['SecretAccessKey']}".encode()
        for part in (day, self.region, 'ec2', 'aws4_request', text):
            key = hmac.new(key, part.encode(), hashlib.sha256).digest()
        credential = f"{self.key['AccessKeyId']}/{scope}"
        headers['authorization'] = f'AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders={names}, Signature={key.hex()}'
        return headers


def probe(seconds, interval, awaited, after, *targets):
    """For each target, the periods in which one router answered: from, to (seconds since the start), router, answers."""
    sockets = {}
    for target in targets:
        name, _, place = target.partition('=')
        host, _, port = place.rpartition(':')
        service = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        service.setblocking(False)
        service.connect((host, int(port)))
        sockets[service] = {'name': name, 'sent': 0, 'periods': []}
    start = time.monotonic()
    due = end = 0.0
    while end < float(seconds):
        end = time.monotonic() - start
        if end >= due:
            latest = [found['periods'][-1] if found['periods'] else (end, end, None) for found in sockets.values()]
            if all(router == awaited and end - first > float(after) and end - last <= GAP for first, last, router, *_ in latest):
                break
            for service, found in sockets.items():
                found['sent'] += 1
                try:
                    service.send(b'probe %d' % found['sent'])
                except OSError:
                    # An ICMP error of an earlier datagram, or no route for the moment: the same as no answer.
                    pass
            due += float(interval)
            continue
        for service in select.select(list(sockets), [], [], due - end)[0]:
            try:
                router = service.recv(128).decode().rpartition(' ')[2]
            except OSError:
                continue
            now, periods = time.monotonic() - start, sockets[service]['periods']
            if periods and periods[-1][2] == router and now - periods[-1][1] <= GAP:
                periods[-1][1] = now
                periods[-1][3] += 1
            else:
                periods.append([now, now, router, 1])
    return {found['name']: {'sent': found['sent'],
                            'periods': [[round(a, 3), round(b, 3), router, count] for a, b, router, count in found['periods']]}
            for found in sockets.values()}


def clock(*offsets):
    ec2 = Ec2()
    return [{'offset': int(offset)} | ec2.describe(int(offset)) for offset in offsets]


def call(times, last, *parameters):
    began, left, ended = time.monotonic(), iter(range(int(times))), threading.Event()

    def send():
        ec2, codes = Ec2(), collections.Counter()
        for _ in left:
            codes[ec2.send(dict(parameter.split('=', 1) for parameter in parameters))['code'] or 'Success'] += 1
            if last in codes:
                ended.set()
            if ended.is_set():
                break
        return codes

    # On several connections, because one call may take longer than the rate limit asks for.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        senders = [pool.submit(send) for _ in range(min(CONNECTIONS, int(times)))]
    codes = sum((sender.result() for sender in senders), collections.Counter())
    return {'codes': codes, 'seconds': round(time.monotonic() - began, 3)}


def idle(seconds):
    ec2 = Ec2()
    first = ec2.describe()
    used = ec2.connection.sock.getsockname()
    time.sleep(float(seconds))
    try:
        # http.client would silently open another connection after a close.
        ec2.connection.auto_open = False
        second = ec2.describe()
        second['same-connection'] = ec2.connection.sock is not None and ec2.connection.sock.getsockname() == used
    except (OSError, http.client.HTTPException) as error:
        second = {'error': f'{type(error).__name__}: {error}'}
    return {'first': first, 'idle-seconds': float(seconds), 'second': second}


def key():
    found = role_key()
    expires = datetime.datetime.fromisoformat(found['Expiration'].replace('Z', '+00:00'))
    # The id alone distinguishes keys; it is no secret.
    return {'key': found['AccessKeyId'], 'expires': found['Expiration'], 'now': time.time(), 'left': expires.timestamp() - time.time()}


def addresses():
    return metadata(f"network/interfaces/macs/{metadata('mac')}/local-ipv4s").split()


if __name__ == '__main__':
    verbs = {function.__name__: function for function in (probe, clock, call, idle, key, addresses)}
    json.dump(verbs[sys.argv[1]](*sys.argv[2:]), sys.stdout)
