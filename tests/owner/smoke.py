"""Runs the smoketest against the stand-ins beside this file, and compares its tables with the definitions."""

import importlib.util
import pathlib
import sys
import unittest

import base_vyostest_shim

SMOKETEST = pathlib.Path(__file__).parents[1] / 'smoke/test_high-availability_vrrp_aws-vipa.py'

spec = importlib.util.spec_from_file_location('smoketest', SMOKETEST)
smoketest = importlib.util.module_from_spec(spec)
spec.loader.exec_module(smoketest)


def commands(nodes, path=()):
    """The nodes with a value, and those that have nothing below them, each as its path without values."""
    for name, node in nodes.items():
        if node.kind == 'tag' or not node.children:
            yield (*path, name), node
        yield from commands(node.children, (*path, name))


class Tables(unittest.TestCase):
    def test_every_node_is_set_and_every_node_is_defined(self):
        vrrp = base_vyostest_shim.definitions().children['high-availability'].children['vrrp'].children
        for parent, nodes, refused in [
            ('global-parameters', smoketest.GLOBAL_NODES, smoketest.REFUSED_GLOBAL),
            ('group', smoketest.GROUP_NODES, smoketest.REFUSED_GROUP),
        ]:
            defined = dict(commands(vrrp[parent].children['aws-vipa'].children))
            typed = [[name] + [value] * (value is not None) for name, (value, _) in nodes.items()]
            if parent == 'group':
                typed += smoketest.ZONE_NODES
            leaves = {path for path, node in defined.items() if node.kind == 'leaf'}
            self.assertEqual({tuple(words[::2]) for words in typed}, leaves)
            for words in typed:
                for end in range(1, len(words) + 1, 2):
                    node, value = defined[tuple(words[:end:2])], words[end:end + 1]
                    self.assertEqual(value == [], node.valueless, words)
                    self.assertTrue(value == [] or node.accepts(*value), words)
            self.assertEqual({tuple(words[::2]) for words in refused}, {p for p in defined if not defined[p].valueless})


if __name__ == '__main__':
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    suite = unittest.TestSuite([load(Tables), load(smoketest.TestAwsVipa)])
    result = unittest.TextTestRunner(sys.stderr, verbosity=2).run(suite)
    sys.exit(0 if result.wasSuccessful() and result.testsRun == 9 and not result.skipped else 1)
