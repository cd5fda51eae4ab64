% for row in rows:
row {{row}}
% end
