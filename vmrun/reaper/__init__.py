"""Giving back what nobody needs: observe, judge, delete. Leaderless, idempotent, safe to run anywhere, any time."""
