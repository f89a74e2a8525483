class ConfigSessionError(Exception):
    pass
