"""The versions that pyrunc states: its own and the specification's."""

__version__ = "0.1.0"

#: The commit that it was installed from; scripts/install writes it into its copy.
COMMIT = "unknown"

#: The newest OCI Runtime Specification that pyrunc implements; written into state.json and `spec`'s output.
OCI_VERSION = "1.3.0"
#: The oldest one that it accepts in config.json (runtime-spec features.md, ociVersionMin).
OCI_VERSION_MIN = "1.0.0"
