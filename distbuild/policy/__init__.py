"""What a controller decides: who builds what, and when. Plain arithmetic, no sockets, no clock."""
