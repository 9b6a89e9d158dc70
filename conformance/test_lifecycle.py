from conformance.harness import Container, spec


@spec("runtime.md#create")
def test_smoke(container: Container) -> None:
    container.create()
    assert container.status == "created"
    container.start()
    assert container.status == "running"
    container.kill("KILL")
    assert container.wait() == 137
    assert container.status == "stopped"
    container.delete()
    assert container.status == ""


@spec("runtime.md#create")
def test_smoke2(container: Container) -> None:
    assert container.run_output("sh", "-c", "echo hi; exit 7") == (7, "hi\n")
