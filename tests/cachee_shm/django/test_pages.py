"""Responses come back as they were, without pickle."""

import datetime

import pytest

from tests import machine

machine.require("Django")


@pytest.fixture
def cache(caches):
    """Of a namespace without pickle."""
    return caches["other"]


def plain():
    from django.http import HttpResponse

    response = HttpResponse(
        "größe", status=404, headers={"X-A": "1", "Content-Language": "de"}, charset="latin-1"
    )
    response.set_cookie("a", "b c", max_age=60, httponly=True, samesite="Lax")
    response.set_cookie("d", expires=datetime.datetime(2030, 1, 1))
    return response


def json():
    from django.http import JsonResponse

    return JsonResponse({"a": [1, 2]}, status=201, reason="Made")


def not_modified():
    from django.http import HttpResponseNotModified

    return HttpResponseNotModified()


def redirect():
    from django.http import HttpResponseRedirect

    return HttpResponseRedirect("/elsewhere")


def template():
    from django.template import engines
    from django.template.response import SimpleTemplateResponse

    text = engines["django"].from_string("hello {{ name }}")
    return SimpleTemplateResponse(text, {"name": "Ada"}).render()


@pytest.mark.parametrize("make", [plain, json, not_modified, redirect, template])
def test_a_response_comes_back_as_it_was(cache, make):
    response = make()
    cache.set("page", response)
    for found in (cache.get("page"), cache.get_many(["page"])["page"], cache.get_or_set("page", None)):
        assert type(found) is type(response)
        assert found.serialize() == response.serialize()
        assert (found.status_code, found.reason_phrase, found.charset) == (
            response.status_code,
            response.reason_phrase,
            response.charset,
        )
        assert found.cookies.output() == response.cookies.output()


def test_a_response_from_the_cache_is_nobody_elses(cache):
    cache.set("page", plain())
    cache.get("page")["X-A"] = "2"
    assert cache.get("page")["X-A"] == "1"


def test_a_class_that_is_no_response_is_a_miss(cache):
    from cachee_shm.django.pages import Page

    class Says:
        def __getstate__(self):
            return {"headers": {}, "cookies": {}}

    Says.__module__, Says.__qualname__ = "subprocess", "Popen"
    cache.shm.set(":1:page", Page(Says()))
    assert cache.get("page") is None


def test_a_template_response_that_is_not_rendered_is_refused_as_by_django(cache):
    from django.template.response import ContentNotRenderedError, SimpleTemplateResponse

    with pytest.raises(ContentNotRenderedError):
        cache.set("page", SimpleTemplateResponse("a.html"))


def test_data_of_a_serializer_comes_back_as_it_pickles(cache):
    """Django REST framework's have a reference to the serializer, and pickle as plain ones without it."""
    from django.http import HttpResponse

    class ReturnDict(dict):
        def __reduce__(self):
            return (dict, (dict(self),))

    class ReturnList(list):
        def __reduce__(self):
            return (list, (list(self),))

    response = HttpResponse("page")
    response.data = {"count": 1, "results": ReturnList([ReturnDict(a=1)])}
    cache.set("page", response)
    found = cache.get("page").data
    assert found == response.data == {"count": 1, "results": [{"a": 1}]}
    assert [type(found["results"]), type(found["results"][0])] == [list, dict]
    assert type(response.data["results"]) is ReturnList


def test_data_that_holds_itself_is_looked_into_to_a_bounded_depth(project):
    from cachee_shm.django import pages

    in_lists, in_dicts = [], {}
    in_lists.append(in_lists)
    in_dicts["a"] = in_dicts
    assert pages._as_pickled(in_lists, 4)[0][0][0][0] is in_lists
    assert pages._as_pickled(in_dicts, 4)["a"]["a"]["a"]["a"] is in_dicts
