"""Many answers at once, in one event loop; whoever is told to wait waits by itself.

FAR_GATEWAY=http://127.0.0.1:8000 FAR_API_KEY=sk-far-… python examples/many.py
"""

import asyncio
import os

from farlabs import AsyncFarLabsClient, FarLabsError, format_far

GATEWAY = os.environ.get("FAR_GATEWAY", "http://127.0.0.1:8000")
MODEL = os.environ.get("FAR_MODEL", "far-demo")
ANIMALS = ("rabbit", "whale", "owl")


async def main() -> None:
    """Ask for all stories, and tell each as soon as it is there."""
    async with AsyncFarLabsClient(GATEWAY, api_key=os.environ["FAR_API_KEY"]) as client:

        async def story(animal: str) -> int:
            try:
                answer = await client.generate(MODEL, f"Tell me a story about a {animal}.", max_tokens=50).result()
            except FarLabsError as error:
                print(f"{animal}: {error.message} ({error.code})")
                return 0
            print(f"{animal}: {answer.text}")
            return answer.cost_units

        print(f"{format_far(sum(await asyncio.gather(*map(story, ANIMALS))))} FAR")


asyncio.run(main())
