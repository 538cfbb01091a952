"""The commands of `metaverify.cli.COMMANDS`, a module each.

Each has an ``EXAMPLE`` of its use, ``add``, which declares its options, and ``run``, which does what they say.
A module is imported when its command is called, and what a command needs beside the standard library when it runs.
"""
