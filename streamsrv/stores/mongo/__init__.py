"""The store on a MongoDB server, for several nodes at once.

``settings`` is light; ``store`` needs pymongo, the extra ``mongo``, and is imported when a server is to be used.  What
lies in the collections is told in ``documents``.
"""

from __future__ import annotations
