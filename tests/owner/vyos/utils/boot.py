import json
import os


def boot_configuration_complete():
    with open(os.environ['VYOS_STAND_IN']) as file:
        return not json.load(file)['boot']
