// no tests yet
