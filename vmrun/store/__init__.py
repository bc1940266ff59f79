"""Implementations of the store seam (`vmrun.core.storage`), the probe that admits them, and the deployment record.

Start at `vmrun.store.opening.open_store`. This package imports nothing by itself: the client of remote
object storage is loaded only when a URL asks for it.
"""
