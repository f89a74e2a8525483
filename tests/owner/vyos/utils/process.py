import os
import shlex
import subprocess


def rc_cmd(command):
    done = subprocess.run(shlex.split(command.removeprefix('sudo ')), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode().strip()


def is_systemd_service_running(service):
    # Where the stand-in of systemctl says so.
    return service == 'vyos-aws-vipa.service' and os.path.exists('/run/vyos-aws-vipa-agent')


def process_named_running(name):
    return os.path.exists(f'/run/{name}/{name}.pid')
