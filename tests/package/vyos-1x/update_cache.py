"""Stands in for vyos-1x's script of this name: merges what packages have put into pkg_cache, and records the call."""

import importlib
import os
import sys

here = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, here)
names = sorted(os.path.splitext(name)[0] for name in os.listdir(os.path.join(here, 'pkg_cache')))
names = [name for name in names if name.endswith('_cache')]
merged = {}
for name in names:
    for key, value in importlib.import_module(f'pkg_cache.{name}').reference.items():
        merged.setdefault(key, value)
with open(os.path.join(here, 'cache.py'), 'w') as file:
    file.write(f'reference = {merged}')
with open('/var/log/vyos-1x-calls', 'a') as file:
    file.write(f'update_cache {" ".join(names)}\n')
