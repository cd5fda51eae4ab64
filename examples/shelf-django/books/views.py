from django.shortcuts import render

from .models import Book


def index(request):
    """All books; how often this visitor was here is in the session."""
    visits = request.session["visits"] = request.session.get("visits", 0) + 1
    return render(request, "books/index.html", {"books": Book.objects.all(), "visits": visits})
