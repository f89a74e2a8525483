reference = {'system': {}}
