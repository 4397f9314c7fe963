"""What a scientist, a clinic and hospital staff do over the wire.

The commands, the demo and the tests share it.
"""
