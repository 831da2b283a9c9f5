"""The relay: an asyncio library that knows no screen."""
