"""An inventory whose hosts agree: FastAPI, SQLAlchemy (async) and PostgreSQL, with Cachee between.

`cachee_shm.sqlalchemy.watch` tells the cache of transactions. So a handler may invalidate where it writes,
inside the transaction: the other hosts hear of it after the commit.
"""

import os

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, PositiveInt
from sqlalchemy import ForeignKey, select, update
from sqlalchemy.ext.asyncio import async_sessionmaker, create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

import cachee_shm
import cachee_shm.sqlalchemy

engine = create_async_engine(os.environ["INVENTORY_DATABASE"])
cachee_shm.sqlalchemy.watch(engine)
sessions = async_sessionmaker(engine, expire_on_commit=False)
cache = cachee_shm.attach("shop")
app = FastAPI(title="Inventory")


class Base(DeclarativeBase):
    pass


class Item(Base):
    __tablename__ = "items"
    sku: Mapped[str] = mapped_column(primary_key=True)
    warehouse: Mapped[str]
    stock: Mapped[int]


class Reservation(Base):
    __tablename__ = "reservations"
    id: Mapped[int] = mapped_column(primary_key=True)
    sku: Mapped[str] = mapped_column(ForeignKey("items.sku"))
    quantity: Mapped[int]


class Order(BaseModel):
    quantity: PositiveInt


class Move(BaseModel):
    warehouse: str


Row = dict[str, str | int]


# Reads: one load a host, whoever asks


@app.get("/items/{sku}")
async def item(sku: str) -> Row:
    row = await cache.aget_or_load(f"item:{sku}", load_item, sku, ttl=300, negative_ttl=5)
    return found(row)


@app.get("/warehouses/{name}")
async def warehouse(name: str) -> list[Row]:
    return await cache.aget_or_load(
        f"warehouse:{name}", load_warehouse, name, ttl=300, tags=[f"warehouse:{name}"]
    )


async def load_item(sku: str) -> Row | None:
    async with sessions() as session:
        one = await session.get(Item, sku)
        return row_of(one) if one else None


async def load_warehouse(name: str) -> list[Row]:
    async with sessions() as session:
        items = await session.scalars(select(Item).where(Item.warehouse == name).order_by(Item.sku))
        return [row_of(each) for each in items]


# Writes: invalidate where the row is written


@app.post("/items/{sku}/reservations")
async def reserve(sku: str, order: Order) -> Row:
    async with sessions.begin() as session:
        taken = update(Item).where(Item.sku == sku, Item.stock >= order.quantity)
        one = await session.scalar(taken.values(stock=Item.stock - order.quantity).returning(Item))
        if one is None:
            raise HTTPException(409, "there are not so many")
        session.add(Reservation(sku=sku, quantity=order.quantity))
        changed(one)
    return row_of(one)


@app.put("/items/{sku}/warehouse")
async def move(sku: str, to: Move) -> Row:
    async with sessions.begin() as session:
        one = found(await session.get(Item, sku, with_for_update=True))
        changed(one)  # it leaves this warehouse's list
        one.warehouse = to.warehouse
        await session.flush()
        changed(one)  # and comes into that one's
    return row_of(one)


def changed(one: Item) -> None:
    """Inside the transaction: what is announced here is announced when it ends."""
    cache.delete(f"item:{one.sku}")
    cache.delete_tags(f"warehouse:{one.warehouse}")


def row_of(one: Item) -> Row:
    return {"sku": one.sku, "warehouse": one.warehouse, "stock": one.stock}


def found(what):
    if what is None:
        raise HTTPException(404)
    return what


async def create() -> None:
    """The tables, and some items."""
    async with engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    async with sessions.begin() as session:
        session.add_all(Item(sku=f"sku-{n}", warehouse="north", stock=25) for n in range(1, 6))


if __name__ == "__main__":
    import asyncio

    asyncio.run(create())
