"""The cache server: hands out artifacts, and answers questions about git repositories, over HTTP.

From the outside in: `program` (command line), `serving` and `tls` (the HTTP server), `application`
with the routes of `reading`, `writing` and `pages`, and `answers` (headers and bodies). Below them
what does the work and knows nothing of HTTP: `artifacts`, `uploads` and `pulling`, and for git
`repositories` and `gitanswers`.
"""
