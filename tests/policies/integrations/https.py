"""What a provider may send, byte by byte."""

from __future__ import annotations


def http(status: int, body: bytes, kind: bytes = b"application/json", length: int | None = None) -> bytes:
    """A reply; ``length`` is what it says of itself."""
    head = b"HTTP/1.1 %d So\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n"
    return head % (status, kind, len(body) if length is None else length) + body


ANSWER = http(
    200,
    b'{"id": "x", "object": "chat.completion", "created": 1, "model": "gpt-4o", "choices": [{"index": 0, '
    b'"finish_reason": "stop", "message": {"role": "assistant", "content": "So."}}], '
    b'"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}',
)
REFUSAL = b'{"error": {"message": "no"}}'
