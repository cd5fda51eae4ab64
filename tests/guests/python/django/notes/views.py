from django.contrib import messages
from django.shortcuts import redirect, render

from .forms import NoteForm
from .models import Note


def index(request):
    request.session["visits"] = request.session.get("visits", 0) + 1
    form = NoteForm(request.POST or None, request.FILES or None)
    if request.method == "POST" and form.is_valid():
        messages.success(request, f"kept: {form.save()}")
        return redirect("index")
    return render(request, "notes/index.html", {"form": form, "notes": Note.objects.order_by("id")})


def fail(request):
    raise ValueError("secret reason")
