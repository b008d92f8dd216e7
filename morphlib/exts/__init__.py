"""The deployment extensions that come with Morph.

`NAME.check`, `NAME.configure` and `NAME.write` are programs; what they do stands in the module
`NAME` beside them, and their help in `NAME.KIND.help`, which is made from the module
(`morphlib.writeexts.helpfile`).
"""
