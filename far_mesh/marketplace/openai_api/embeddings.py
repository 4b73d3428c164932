"""``/v1/embeddings`` in our words, and its answers in theirs. Pure."""

from __future__ import annotations

import base64
import struct
from collections.abc import Sequence

from far_mesh.marketplace.inference.jobs import Embedded
from far_mesh.marketplace.inference.run import Answer, Item
from far_mesh.marketplace.inference.service import EmbeddingWish
from far_mesh.marketplace.openai_api.schemas import EmbeddingAnswer, EmbeddingRequest, EmbeddingUsage, Vector
from far_mesh.marketplace.openai_api.service import far


def wish_of(body: EmbeddingRequest) -> EmbeddingWish:
    """What is asked for, in our words.

    Raises:
        UnsupportedParameter: something we do not do.
    """
    body.refuse_what_we_do_not_have()
    return EmbeddingWish(
        model_id=body.model,
        texts=_texts(body.input),
        pooling=body.pooling or "mean",
        quote_id=body.quote_id,
        tier=body.tier,
    )


def whole(body: EmbeddingRequest, items: Sequence[Item], answer: Answer) -> EmbeddingAnswer:
    """The vectors, for an answer."""
    vectors = [vector for item in items if isinstance(item, Embedded) for vector in item.vectors]
    written = _in_base64 if body.encoding_format == "base64" else list
    return EmbeddingAnswer(
        data=[Vector(index=index, embedding=written(vector)) for index, vector in enumerate(vectors)],
        model=body.model,
        usage=EmbeddingUsage(prompt_tokens=answer.prompt_tokens, total_tokens=answer.prompt_tokens),
        far=far(answer),
    )


def _texts(given: str | list[str] | list[int] | list[list[int]]) -> tuple[str | tuple[int, ...], ...]:
    if isinstance(given, str):
        return (given,)
    ids = tuple(one for one in given if isinstance(one, int))
    return (
        (ids,)
        if ids
        else tuple(one if isinstance(one, str) else tuple(one) for one in given if not isinstance(one, int))
    )


def _in_base64(vector: Sequence[float]) -> str:
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode()
