"""On a router, what an unexpected exception is reported by."""


def enable(log=True):
    pass
