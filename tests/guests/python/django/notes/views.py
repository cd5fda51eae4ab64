import sqlite3

from django.contrib import messages
from django.http import HttpResponse
from django.shortcuts import redirect, render

from .forms import NoteForm
from .models import Note

# As programs do that make their tables when they start: beside the code.
BESIDE = "visits.db"
with sqlite3.connect(BESIDE) as beside:
    beside.execute("CREATE TABLE IF NOT EXISTS visits (number INTEGER PRIMARY KEY)")
beside.close()


def visits(request):
    with sqlite3.connect(BESIDE) as connection:
        number = connection.execute("INSERT INTO visits DEFAULT VALUES").lastrowid
    connection.close()
    return HttpResponse(f"visit {number} of all")


def index(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    form = NoteForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        messages.success(request, f"kept: {form.save()}")
        return redirect("index")
    return render(request, "notes/index.html", {"form": form, "notes": Note.objects.order_by("id")})


def fail(request):
    raise ValueError("secret reason")
