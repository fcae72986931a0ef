"""Decoding in a cage: the processes behind ``streamsrv.audio.decode``.

What runs in the child (``child session packets speaker ogg wav limits seccomp``) imports nothing else of ours but
``wire`` and ``sniff``, so that a child is small; what runs in the server (``settings reasons walls process lane pool``)
never touches a decoder.
"""
