"""The gRPC contract of Vitrine and its generated stubs."""
