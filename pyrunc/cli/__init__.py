"""The command line: argv in, exit status out. Nothing about containers is decided here.

`table` says which commands and flags exist, `parse` reads argv by it, `help` prints it, `program` runs one
command; the other modules hold the commands, grouped by what they touch, and are imported only when needed.
"""
