def read_file(fname):
    with open(fname) as file:
        return file.read().strip()
