import json
import os


def boot_configuration_complete():
    with open(os.environ.get('VYOS_STAND_IN', '/run/vyos-stand-in.json')) as file:
        return not json.load(file)['boot']
