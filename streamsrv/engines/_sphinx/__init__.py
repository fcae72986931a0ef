"""PocketSphinx in processes of its own: it holds the GIL, so the server's process never imports it.

server process                      zygote (one)                  workers (one session's segment each)
``keeper`` --- fork, please --->    builds the decoder once  ---> ``worker``: ``ear`` hears, ``voice`` adapts
``slots``  <-- a socket, a pidfd --
``lease``  <------------------ audio, hypotheses (``wire``) -----------------> worker
"""
