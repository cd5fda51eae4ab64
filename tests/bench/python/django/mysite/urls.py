from django.shortcuts import render
from django.urls import path


def page(request):
    rows = [{"name": f"<row {number}>", "price": number * 3} for number in range(20)]
    return render(request, "page.html", {"rows": rows})


urlpatterns = [path("", page)]
