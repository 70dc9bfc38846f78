"""A shop whose hosts agree: FastAPI in front, SQLite behind, Cachee between.

Three rules, and no invalidation code beyond them:
  1. Every read goes through `get_or_load`: what is not in the host's shared cache is loaded once and kept.
  2. A write that knows the new row wraps the database's commit in `cache.writing` and hands the row over.
  3. A write that does not is followed by `cache.delete`, after its commit.
All workers of this host then see the write at once, and every other host drops its copy within a millisecond.
"""

import asyncio
import os
import socket

import database
from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

import cachee_shm

app = FastAPI(title="Shop")
cache = cachee_shm.attach("shop")
host = os.environ.get("SHOP_HOST") or socket.gethostname()


class NewPrice(BaseModel):
    cents: int


class Order(BaseModel):
    quantity: int


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
    product, price = await asyncio.gather(read_product(id), read_price(id))
    return {"product": product, "price": price}


@app.put("/prices/{id}")
def set_price(id: int, new: NewPrice) -> database.Row:
    with cache.writing(f"price:{id}") as w:
        price = found(database.set_price(id, new.cents))
        w.set(price, ttl=60)
    return answer(price)


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


def found(row: database.Row | None) -> database.Row:
    """The row, or a 404. Raised inside `cache.writing` it deletes the key, as any error does."""
    if row is None:
        raise HTTPException(404)
    return row


def answer(row: database.Row | None) -> database.Row:
    return {**found(row), "host": host}
