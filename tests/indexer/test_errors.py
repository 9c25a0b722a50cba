from indexer.errors import VitrineError


def test_every_error_has_an_exit_code_of_its_own() -> None:
    codes = [kind.exit_code for kind in (VitrineError, *VitrineError.__subclasses__())]
    assert len(set(codes)) == len(codes)
    assert 0 not in codes
