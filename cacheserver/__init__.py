"""The cache server: hands out artifacts, and answers questions about git repositories, over HTTP.

From the outside in: `program` (command line), `serving` and `tls` (the HTTP server), `application`
and `writing` (routes), `answers` (headers and bodies); below them what does the work and knows
nothing of HTTP: `artifacts`, `uploads`, `pulling`, and for git `repositories` and `gitanswers`.
"""
