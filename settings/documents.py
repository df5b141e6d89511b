"""The section `[documents]`: the model of embeddings by which documents are searched besides their words."""

from typing import Annotated, Literal, Self

from pydantic import BaseModel, Field, field_validator, model_validator

from settings.validation import KEY_NAME, STRICT, is_address


class DocumentSettings(BaseModel):
    """The section `[documents]`."""

    model_config = STRICT

    embeddings: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    """The model that turns texts into vectors; without it documents are searched by their words alone."""
    kind: Literal["openai", "gemini"] = "openai"
    """The protocol of its server."""
    base_url: str | None = None
    """The address of its server; by default that of OpenAI or Google."""
    key: str | None = None
    """The name of the environment variable with the key."""
    similarity: Annotated[float, Field(ge=0, le=1)] = 0.3
    """The least cosine similarity of a passage to the message, which depends on the model."""

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: str) -> str:
        if not is_address(url):  # the value is not repeated: it could contain a password
            raise ValueError("not a valid address; allowed: http://HOST… or https://HOST…, without name and password")
        return url.rstrip("/")

    @field_validator("key")
    @classmethod
    def _check_key(cls, name: str) -> str:
        if not KEY_NAME.fullmatch(name):
            raise ValueError('this is the name of an environment variable, such as "OPENAI_API_KEY", never the key')
        return name

    @model_validator(mode="after")
    def _check_model(self) -> Self:
        if self.embeddings is None and (given := self.model_fields_set - {"embeddings"}):
            raise ValueError(f"{min(given)}: has no effect without `embeddings`, which names a model")
        return self

    @property
    def key_name(self) -> str | None:
        """The variable with the key, or the provider's usual one; None if no key is needed."""
        if self.embeddings is None or self.key:
            return self.key
        if self.kind == "gemini":
            return "GOOGLE_API_KEY"
        return None if self.base_url else "OPENAI_API_KEY"

    @property
    def source(self) -> str:
        """The model with its server: vectors of different sources cannot be compared."""
        return f"{self.kind} {self.base_url or ''} {self.embeddings}"
