select * from loyalty.bi_staff
