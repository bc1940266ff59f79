"""Programs that run on a machine as `python3 -I -c`: fixed text, the standard library of Python 3.8, data by argument.

They print one JSON document and are never imported by vmrun itself.
"""
