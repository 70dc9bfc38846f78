"""A shop whose hosts agree: FastAPI in front, SQLite behind, Cachee between.

Four rules, and no invalidation code beyond them:
  1. Every read goes through `get_or_load`: what is not in the host's shared cache is loaded once and kept.
  2. A write that knows the new row wraps the database's commit in `cache.writing` and hands the row over.
  3. A write that does not is followed by `cache.delete`, after its commit.
  4. What is made of many rows carries a tag. Whoever changes one of the rows drops the tag, after the rows.
All workers of this host then see the write at once, and every other host drops its copy within a millisecond.
"""

import asyncio
import os
import socket

import database
from fastapi import FastAPI, HTTPException
from fastapi.responses import RedirectResponse
from pydantic import BaseModel, Field

import cachee_shm

app = FastAPI(title="Shop")
cache = cachee_shm.attach("shop")
ARRIVED_S = 1.0  # how long a redirect waits for the other hosts
host = os.environ.get("SHOP_HOST") or socket.gethostname()


class NewPrice(BaseModel):
    cents: int


class Order(BaseModel):
    quantity: int


class Discount(BaseModel):
    percent: int = Field(ge=1, le=99)


@app.get("/products/{id}")
async def read_product(id: int) -> database.Row:
    return answer(await cache.aget_or_load(f"product:{id}", asyncio.to_thread, database.product, id, ttl=60))


@app.get("/prices/{id}")
async def read_price(id: int) -> database.Row:
    return answer(await cache.aget_or_load(f"price:{id}", asyncio.to_thread, database.price, id, ttl=60))


@app.get("/users/{id}")
def read_user(id: int) -> database.Row:
    return answer(cache.get_or_load(f"user:{id}", database.user, id, ttl=60))


@app.get("/pages/{id}")
async def read_page(id: int) -> dict[str, database.Row]:
    return {"product": await read_product(id), "price": await read_price(id)}  # a hit waits for nothing


@app.get("/catalogue/{category}")
async def read_catalogue(category: int) -> list[database.Row]:
    page = await cache.aget_or_load(
        f"catalogue:{category}",
        asyncio.to_thread,
        load_catalogue,
        category,
        ttl=60,
        tags=[f"category:{category}"],
    )
    if not page:
        raise HTTPException(404)
    return page


def load_catalogue(category: int) -> list[database.Row]:
    """One page of many rows. Those that this host does not have are loaded by one query a table."""
    ids = database.category(category)
    products = cache.get_or_load_many([f"product:{id}" for id in ids], load_products, ttl=60)
    prices = cache.get_or_load_many([f"price:{id}" for id in ids], load_prices, ttl=60)
    rows = [(found(products[f"product:{id}"]), found(prices[f"price:{id}"])) for id in ids]
    return [
        {"id": product["id"], "title": product["title"], "cents": price["cents"], "version": price["version"]}
        for product, price in rows
    ]


def load_products(keys: list[str]) -> dict[str, database.Row]:
    rows = database.products(int(key.removeprefix("product:")) for key in keys)
    return {f"product:{id}": row for id, row in rows.items()}


def load_prices(keys: list[str]) -> dict[str, database.Row]:
    rows = database.prices(int(key.removeprefix("price:")) for key in keys)
    return {f"price:{id}": row for id, row in rows.items()}


@app.put("/prices/{id}")
def set_price(id: int, new: NewPrice) -> database.Row:
    with cache.writing(f"price:{id}") as w:
        price = found(database.set_price(id, new.cents))
        w.set(price, ttl=60)
    product = found(cache.get_or_load(f"product:{id}", database.product, id, ttl=60))
    cache.delete_tags(f"category:{product['category']}")
    return answer(price)


@app.post("/catalogue/{category}/discounts")
def discount(category: int, new: Discount) -> RedirectResponse:
    """Whichever host the redirect leads to, it shows the new prices."""
    ids = database.discount(category, new.percent)
    cache.delete_many([f"price:{id}" for id in ids])
    cache.delete_tags(f"category:{category}")
    cache.wait_synced(ARRIVED_S)
    return RedirectResponse(f"/catalogue/{category}", status_code=303)


@app.post("/users/{id}/visits")
def visit(id: int) -> database.Row:
    with cache.writing(f"user:{id}") as w:
        user = found(database.visit(id))
        w.set(user, ttl=60)
    return answer(user)


@app.post("/products/{id}/orders")
def order(id: int, order: Order) -> database.Row:
    product = found(database.order(id, order.quantity))
    cache.delete(f"product:{id}")
    return answer(product)


def warmed() -> cachee_shm.Cache:
    """For `cachee warm --app app:warmed`: who loads a row that was changed and will soon be read."""
    for load in (database.product, database.price, database.user):
        prefix = f"{load.__name__}:"
        cache.origin(prefix, load=lambda key, load=load: load(int(key.partition(":")[2])), ttl=60)
    return cache


def found(row: database.Row | None) -> database.Row:
    """The row, or a 404. Raised inside `cache.writing` it deletes the key, as any error does."""
    if row is None:
        raise HTTPException(404)
    return row


def answer(row: database.Row | None) -> database.Row:
    return {**found(row), "host": host}
