"""Far Mesh over gRPC: the same services behind another door."""
