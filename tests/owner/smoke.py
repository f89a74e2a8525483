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


class Tables(unittest.TestCase):
    def test_every_node_is_set_and_every_node_is_defined(self):
        vrrp = base_vyostest_shim.definitions().children['high-availability'].children['vrrp'].children
        for parent, nodes, refused in [
            ('global-parameters', smoketest.GLOBAL_NODES, smoketest.REFUSED_GLOBAL),
            ('group', smoketest.GROUP_NODES, smoketest.REFUSED_GROUP),
        ]:
            defined = vrrp[parent].children['aws-vipa'].children
            self.assertEqual(set(nodes), set(defined))
            for name, (value, _) in nodes.items():
                self.assertEqual(value is None, defined[name].valueless, name)
                self.assertTrue(value is None or defined[name].accepts(value), name)
            self.assertEqual({name for name, _ in refused}, {n for n in defined if not defined[n].valueless})


if __name__ == '__main__':
    load = unittest.defaultTestLoader.loadTestsFromTestCase
    suite = unittest.TestSuite([load(Tables), load(smoketest.TestAwsVipa)])
    result = unittest.TextTestRunner(sys.stderr, verbosity=2).run(suite)
    sys.exit(0 if result.wasSuccessful() and result.testsRun == 8 and not result.skipped else 1)
