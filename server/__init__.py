"""Release to answers: the gRPC services over one immutable state, and the `vitrine` command."""
