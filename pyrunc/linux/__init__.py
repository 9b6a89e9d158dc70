"""One thin function per system call or /proc file: arguments in, result or OSError out, no policy.

Each raises OSError with the kernel's errno; callers that know why they called add the rest.
"""
