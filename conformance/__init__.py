"""Black-box tests for OCI runtimes: make bundles, run the binary, look from inside and from the host."""
