"""The status page of a controller: what it, its workers and its builds do, and did lately."""
